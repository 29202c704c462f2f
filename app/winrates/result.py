"""The result as the experiment's page shows it: ready values for templates/winrates/result.html."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, func, select

from app.models import Experiment, Prompt, Response, Run
from app.runs import states
from app.runs.queries import ACTIVE
from app.winrates import rails, tables
from app.winrates.choices import Asked, Choice, choose
from app.winrates.makers import NOBODY, Maker, makers
from app.winrates.markdown import as_markdown
from app.winrates.sentences import SIGNIFICANT

MOST_COMPARISONS = 60  # that the page lists
MOST_WARNINGS = 5  # that are not folded
MANY_EMPTY, FEW_ENDED = 0.01, 0.9  # shares from which on a reader's eye should stop
INTERVAL = " (95 % interval"


@dataclass(frozen=True)
class Result:
    """`choice` is None where there is nothing at all; `table` where nothing is judged, and says why in `answers`."""

    choice: Choice | None = None
    table: tables.WinRates | None = None
    answers: dict[str, int] = field(default_factory=dict)  # "answers", "models", "prompts" that wait for a judge
    alive: Sequence[dict[str, Any]] = ()  # runs that answer or judge now
    claim: str = ""  # the first finding, up to its interval
    claim_rest: str = ""
    findings: Sequence[str] = ()
    rows: Sequence[dict[str, Any]] = ()
    columns: Collection[str] = ()  # those of which something is known
    scale: rails.Scale = field(default_factory=lambda: rails.of_rates([]))
    prompts: int = 0  # the most that a model was judged on
    comparisons: Sequence[dict[str, Any]] = ()
    more_comparisons: int = 0
    warnings: Sequence[str] = ()
    more_warnings: Sequence[str] = ()
    noise: str = ""
    markdown: str = ""


def result(session: Session, experiment: Experiment, asked: Asked) -> Result:
    """What an experiment's page shows on top. The same few queries, however many answers there are."""
    alive = _alive(session, experiment)
    choice = choose(session, experiment, asked)
    if choice is None or not choice.judge:
        return Result(choice, alive=alive, answers=_waiting(session, experiment, choice) if choice else {})
    table = tables.winrate(session, experiment, choice.judge, choice.baseline, choice.prompts)
    made = makers(session, experiment, choice.prompts)
    columns = {name for name in COLUMNS if any(row[name] is not None for row in table.rows)}
    if len({row["n"] for row in table.rows}) > 1:
        columns.add("n")
    scale = rails.of_rates(row[edge] for row in table.rows for edge in ("win_rate", "ci_low", "ci_high"))
    claim, rest = _split(table.findings[0]) if table.findings else ("", "")
    return Result(
        choice,
        table,
        alive=alive,
        claim=claim,
        claim_rest=rest,
        findings=table.findings[1:],
        rows=[_row(row, choice, made, scale) for row in table.rows],
        columns=columns,
        scale=scale,
        prompts=max((row["n"] for row in table.rows), default=0),
        comparisons=[_comparison(each, choice, made) for each in table.comparisons[:MOST_COMPARISONS]],
        more_comparisons=max(0, len(table.comparisons) - MOST_COMPARISONS),
        warnings=table.warnings[:MOST_WARNINGS],
        more_warnings=table.warnings[MOST_WARNINGS:],
        noise=_noise(table.noise),
        markdown=as_markdown(table, columns),
    )


COLUMNS = ("length_controlled_win_rate", "margin_weighted_win_rate", "empty_rate", "ended_rate", "mean_length")


def _split(finding: str) -> tuple[str, str]:
    """What is claimed, and what it is worth."""
    claim, mark, rest = finding.partition(INTERVAL)
    return (claim, mark + rest) if mark else (finding, "")


def _row(row: Mapping[str, Any], choice: Choice, made: Mapping[str, Maker], scale: rails.Scale) -> dict[str, Any]:
    empty, ended = row["empty_rate"], row["ended_rate"]
    return {
        **row,
        "maker": made.get(row["model"], NOBODY),
        "rail": scale.rail(row["win_rate"], row["ci_low"], row["ci_high"]),
        "interval": interval(row["ci_low"], row["ci_high"]),
        "empty_is_bad": empty is not None and empty >= MANY_EMPTY,
        "ended_is_bad": ended is not None and ended < FEW_ENDED,
        "query": answers_query(choice, row["model"], choice.baseline),
    }


def answers_query(choice: Choice, model: str, baseline: str) -> str:
    """The address's query of the page where these two models' answers stand side by side."""
    return choice.asked.query(model=model, baseline=baseline)


def interval(low: float | None, high: float | None) -> str:
    """In per cent."""
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def _comparison(found: Mapping[str, Any], choice: Choice, made: Mapping[str, Maker]) -> dict[str, Any]:
    low, high = found["ci_low"], found["ci_high"]
    return {
        **found,
        "points": f"{100 * found['difference'] + 0.0:+.1f}",
        "interval": "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}",
        "significant": found["p_value_holm"] < SIGNIFICANT,
        "maker_a": made.get(found["a"], NOBODY),
        "maker_b": made.get(found["b"], NOBODY),
        "query": answers_query(choice, found["a"], found["b"]),
    }


NOISE = (
    ("order_disagreement", "{:.1%} of the pairs are decided otherwise when the answers change places"),
    ("repeat_disagreement", "{:.1%} of what was asked twice is decided otherwise"),
    ("repeat_difference", "scores asked for twice differ by {:.3g}"),
)
COUNTED = (("undecided", "{:,.0f} are undecided"), ("unparsable", "{:,.0f} replies could not be read"))


def _noise(noise: Mapping[str, float]) -> str:
    """How far the judge can be trusted to say the same again, as far as it was measured."""
    measured = [words.format(noise[name]).replace("%", " %") for name, words in NOISE if name in noise]
    return "; ".join([*measured, *(words.format(noise[name]) for name, words in COUNTED if noise.get(name))])


def _alive(session: Session, experiment: Experiment) -> list[dict[str, Any]]:
    """The runs that will change the result, those that run first."""
    statement = select(Run.id, Run.name, Run.stage, Run.state).where(
        Run.experiment_id == experiment.id, col(Run.stage).in_(("respond", "judge")), col(Run.state).in_(ACTIVE)
    )
    statement = statement.order_by(col(Run.state) != states.RUNNING, col(Run.id)).limit(5)
    return [
        {"id": key, "name": name, "stage": stage, "state": state} for key, name, stage, state in session.exec(statement)
    ]


def _waiting(session: Session, experiment: Experiment, choice: Choice) -> dict[str, int]:
    """How many answers wait for a judge."""
    counts = func.count(), func.count(func.distinct(Response.model)), func.count(func.distinct(Response.prompt_key))
    statement = select(*counts).select_from(Response).join(Prompt, col(Prompt.id) == Response.prompt_key)
    found = session.exec(
        statement.where(Prompt.experiment_id == experiment.id, Prompt.set_name == choice.prompts)
    ).one()
    return dict(zip(("answers", "models", "prompts"), found, strict=True))
