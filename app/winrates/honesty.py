"""What a reader of a win rate must know before believing it: sentences that stand beside the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, func, select

from app.models import Experiment, Prompt, Response, Run, Score, Verdict
from app.runs import graph
from app.runs.inputs import find_dataset
from app.winrates.opinions import Array
from app.winrates.sets import PEOPLE
from app.winrates.stats import Rate
from training.config import InvalidConfig, JudgingConfig, StageConfig, parse_config
from training.references import parse_reference

EDGE = 0.05  # a rate beyond this, or beyond 1 minus it, hardly moves any more
UNENDED = 0.1  # share of answers that were cut
EMPTY = 0.01  # share of answers that say nothing
FEWEST = 30  # prompts: with fewer, intervals are rough
NOISY = 0.2  # share of pairs on which a judge contradicts itself
NOISE = ("order_disagreement", "repeat_disagreement", "repeat_difference", "undecided", "unparsable", "judged")


def of_labels(session: Session, experiment: Experiment, set_name: str, judge: str, models: Sequence[str]) -> list[str]:
    """Where the judge also labelled what a model was trained on: it then finds its own taste in the answers."""
    found = [name for name in models if _judged(judge, _labellers(session, experiment, set_name, name))]
    if not found:
        return []
    who = "People" if judge == PEOPLE else judge
    return [
        f"{who} also labelled training data of {_listed(found)}: its win rate may rise while the answers get worse. "
        "Hold it against another judge, a checker or people."
    ]


def _judged(judge: str, labellers: set[str]) -> bool:
    return judge in labellers or (judge == PEOPLE and any(name.startswith(f"{PEOPLE}:") for name in labellers))


def _labellers(session: Session, experiment: Experiment, set_name: str, model: str) -> set[str]:
    """Who labelled the data that a model, or one that it came from, was trained on: uploads, and what a run made."""
    answered = select(Response.run_id).join(Prompt, col(Prompt.id) == col(Response.prompt_key))
    answered = answered.where(
        Prompt.experiment_id == experiment.id, Prompt.set_name == set_name, Response.model == model
    )
    made = session.exec(select(Run).where(col(Run.id).in_(answered))).all()
    found: set[str] = set()
    for run in _ancestors(session, made):
        config = _config_of(run)
        if isinstance(config, JudgingConfig):  # its judge chose the better answers of what it made
            found.add(config.judge_name)
        for name, text in config.references() if config is not None else ():
            reference = parse_reference(text)
            dataset = find_dataset(session, reference) if name == "dataset" and reference.kind == "data" else None
            if dataset is not None:
                found |= set(dataset.facts.get("labelled_by") or [])
    return found


def _config_of(run: Run) -> StageConfig | None:
    """None where another version launched it."""
    try:
        return parse_config(run.config)
    except InvalidConfig:
        return None


def _ancestors(session: Session, runs: Sequence[Run]) -> list[Run]:
    known: dict[int, Run] = {}
    edge = list(runs)
    while edge:
        run = edge.pop()
        if run.id is not None and run.id not in known:
            known[run.id] = run
            edge += graph.parents(session, run.id)
    return list(known.values())


def of_edges(models: Sequence[str], rates: Sequence[Rate], baseline: str) -> list[str]:
    """Where the baseline is so weak, or so strong, that rates say little of the difference between models."""
    told = [(name, rate.win_rate) for name, rate in zip(models, rates, strict=True) if rate.n >= FEWEST]
    weak = [name for name, rate in told if rate >= 1 - EDGE]
    strong = [name for name, rate in told if rate <= EDGE]
    said = []
    if weak:
        said.append(f"{baseline} loses nearly always against {_listed(weak)}: a stronger baseline would tell more.")
    if strong:
        said.append(f"{baseline} wins nearly always against {_listed(strong)}: a weaker baseline would tell more.")
    return said


def of_answers(
    rows: Sequence[dict[str, Any]], baseline: str, baseline_empty: float | None, baseline_ended: float | None
) -> list[str]:
    """Where answers were judged that never ended, or are empty. rows: of the table; shares are in [0, 1], or unknown."""
    said = []
    shares = [(row["model"], row["empty_rate"], row["ended_rate"]) for row in rows]
    for name, empty, ended in [*shares, (baseline, baseline_empty, baseline_ended)]:
        if empty is not None and empty >= EMPTY:
            said.append(f"{_percent(empty)} of the answers of {name} are empty, and were judged like any other.")
        if ended is not None and 1 - ended > UNENDED:
            said.append(
                f"{_percent(1 - ended)} of the answers of {name} never ended: they were cut, and judged as they were."
            )
    return said


def of_lengths(deltas: dict[str, Array], baseline: str) -> list[str]:
    """Where a rate at equal length is a guess beyond all that was seen. deltas: of each model that has such a rate, its
    answers' characters minus the baseline's."""
    longer = [name for name, delta in deltas.items() if delta.min() > 0]
    shorter = [name for name, delta in deltas.items() if delta.max() < 0]
    return [
        f"Every answer of {_listed(names)} is {how} than {baseline}'s: "
        f"{'its rate' if len(names) == 1 else 'their rates'} at equal length cannot be told from these prompts."
        for names, how in ((longer, "longer"), (shorter, "shorter"))
        if names
    ]


def of_prompts(models: Sequence[str], rates: Sequence[Rate]) -> list[str]:
    """Where there are few prompts, or not the same number for all."""
    if not rates:
        return []
    fewest, most = min(rate.n for rate in rates), max(rate.n for rate in rates)
    counted = "1 prompt is" if fewest == 1 else f"{fewest} prompts are"
    said = [f"{counted} little to go by: the intervals themselves are rough."] if fewest < FEWEST else []
    if fewest < most:
        fewer = [name for name, rate in zip(models, rates, strict=True) if rate.n < most]
        said.append(f"Not all have been judged on as many prompts: {_listed(fewer)} on fewer than {most:,}.")
    return said


def noise_of(session: Session, experiment: Experiment, set_name: str, judge: str) -> dict[str, float]:
    """How much a judge contradicts itself, by the latest run of it whose verdicts or scores on these prompts stand;
    empty where unknown."""
    of_set = (Prompt.experiment_id == experiment.id, Prompt.set_name == set_name)
    voted = select(func.max(Verdict.run_id)).join(Prompt, col(Prompt.id) == col(Verdict.prompt_key))
    scored = select(func.max(Score.run_id)).join(Response, col(Response.id) == col(Score.response_id))
    scored = scored.join(Prompt, col(Prompt.id) == col(Response.prompt_key))
    found = [
        session.exec(voted.where(*of_set, Verdict.judge == judge)).one(),
        session.exec(scored.where(*of_set, Score.judge == judge)).one(),
    ]
    run = session.get(Run, max(key or 0 for key in found))
    if run is None:
        return {}
    last = {name: (run.summary.get(name) or {}).get("last") for name in NOISE}
    return {name: float(value) for name, value in last.items() if value is not None}


def of_noise(noise: dict[str, float]) -> list[str]:
    """Where the judge's own noise is large."""
    said = []
    if (share := noise.get("order_disagreement", 0.0)) > NOISY:
        said.append(f"The judge decides otherwise in {_percent(share)} of the pairs when the answers change places.")
    if (share := noise.get("repeat_disagreement", 0.0)) > NOISY:
        said.append(f"Asked twice, the judge decides otherwise in {_percent(share)} of the pairs.")
    if count := int(noise.get("unparsable", 0)):
        said.append(f"{count:,} of the judge's replies could not be read; those pairs have no verdict.")
    return said


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
