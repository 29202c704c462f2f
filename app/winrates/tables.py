"""The result: models against a baseline, against each other, in a ranking; and judges against each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sqlmodel import Session

from app.models import Experiment
from app.winrates import agreement as agreements
from app.winrates import honesty, sets
from app.winrates.bradley_terry import bradley_terry
from app.winrates.judgements import read_judgements
from app.winrates.length_control import length_controlled_rate
from app.winrates.opinions import Against, Answers, Array, at_prompts, read_answers, read_opinions, scores_by
from app.winrates.sentences import sentence_of, sentence_of_rate, warnings_of
from app.winrates.stats import Comparison, Rate, compare_all, margin_weighted_rate, win_rates

CHECKER = "checker"  # the judge whose scores say what is right
FEW_MODELS = 4  # whose every comparison is told in a sentence; of more, those of neighbours
NEIGHBOURS = 5


@dataclass(frozen=True)
class WinRates:
    """One judge's table against one baseline. `rows`, `comparisons`: as docs/cli.md shows them."""

    experiment: str
    prompts: str
    judge: str
    baseline: str
    rows: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    findings: list[str]
    warnings: list[str]
    noise: dict[str, float] = field(default_factory=dict)
    judges: list[str] = field(default_factory=list)  # to choose from, as are the next two
    models: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As docs/cli.md shows it."""
        return _without(self, "judges", "models", "sets")


def _without(table: WinRates | Ranking | Agreements, *names: str) -> dict[str, Any]:
    return {key: value for key, value in vars(table).items() if key not in names}


def winrate(
    session: Session, experiment: Experiment, judge: str = "", baseline: str = "", prompts: str = ""
) -> WinRates:
    """The table that was asked for, or the experiment's own. Raises NotFound, Invalid."""
    set_name = sets.choose_set(session, experiment, prompts)
    there = sets.judges(session, experiment, set_name)
    chosen = sets.choose_judge(experiment, there, judge)
    opinions = read_opinions(session, experiment, set_name, chosen)
    base = sets.choose_baseline(experiment, opinions.models, baseline)
    against = opinions.against(base)
    answers = at_prompts(read_answers(session, experiment, set_name, opinions.models), against.prompts)
    places, at = against.others(), opinions.models.index(base)
    rates = win_rates([_known(against.preferences[place]) for place in places])
    order = sorted(range(len(places)), key=lambda each: (-rates[each].win_rate, opinions.models[places[each]]))
    places, rates = [places[each] for each in order], [rates[each] for each in order]
    rows = [_row(against, answers, place, rate) for place, rate in zip(places, rates, strict=True)]
    compared = compare_all(against.preferences[places]) if places else {}
    names = [opinions.models[place] for place in places]
    noise = honesty.noise_of(session, experiment, set_name, chosen)
    controlled = [
        place for place, row in zip(places, rows, strict=True) if row["length_controlled_win_rate"] is not None
    ]
    deltas = {opinions.models[place]: _deltas(against, answers, place)[1] for place in controlled}
    return WinRates(
        experiment=experiment.name,
        prompts=set_name,
        judge=chosen,
        baseline=base,
        rows=rows,
        comparisons=[{"a": names[a], "b": names[b], **asdict(each)} for (a, b), each in compared.items()],
        findings=[
            *_findings(names, rates, compared, base),
            *(_right_answers(scores_by(session, experiment, set_name, chosen)) if chosen == CHECKER else []),
        ],
        warnings=[
            *honesty.of_labels(session, experiment, set_name, chosen, [*names, base]),
            *honesty.of_edges(names, rates, base),
            *honesty.of_lengths(deltas, base),
            *honesty.of_answers(rows, base, mean(answers.empty[at]), mean(answers.ended[at])),
            *honesty.of_prompts(names, rates),
            *honesty.of_noise(noise),
        ],
        noise=noise,
        judges=sets.pooled(there),
        models=sorted(opinions.models),
        sets=sets.prompt_sets(session, experiment),
    )


def _known(values: Array) -> Array:
    known: Array = values[~np.isnan(values)]
    return known


def _findings(
    names: list[str], rates: list[Rate], compared: dict[tuple[int, int], Comparison], baseline: str
) -> list[str]:
    """Which model wins more often than which, and how often the first few win against the baseline."""
    told = [pair for pair in _told(len(names)) if pair in compared]
    first = list(zip(names, rates, strict=True))[:FEW_MODELS]
    return [
        *(sentence_of(compared[a, b], names[a], names[b]) for a, b in told),
        *(sentence_of_rate(rate, name, baseline) for name, rate in first),
    ]


def _right_answers(scores: list[tuple[int, str, float]]) -> list[str]:
    """The checker's scores are 1 and 0: how many answers of each model are right."""
    of_model: dict[str, list[float]] = {}
    for _, model, score in scores:
        of_model.setdefault(model, []).append(score)
    best = sorted(of_model.items(), key=lambda each: (-sum(each[1]) / len(each[1]), each[0]))
    told = [f"{model} {sum(each) / len(each):.1%} ({sum(each):,.0f} of {len(each):,})" for model, each in best]
    return [f"Right answers: {', '.join(told)}.".replace("%", " %")] if told else []


def _told(models: int) -> list[tuple[int, int]]:
    """Which comparisons are told, by rank: all of a few models, else each with the next."""
    if models <= FEW_MODELS:
        return [(a, b) for a in range(models) for b in range(a + 1, models)]
    return [(rank, rank + 1) for rank in range(min(NEIGHBOURS, models - 1))]


def _row(against: Against, answers: Answers, place: int, rate: Rate) -> dict[str, Any]:
    """One model's line; lengths, ends and empty answers are of the prompts that its rate is of."""
    judged = ~np.isnan(against.preferences[place])
    preferences, deltas = _deltas(against, answers, place)
    weighed = judged & ~np.isnan(against.margins[place])
    controlled = length_controlled_rate(preferences, deltas) if len(deltas) else None
    weighted = (
        margin_weighted_rate(against.preferences[place][weighed], against.margins[place][weighed])
        if weighed.any()
        else None
    )
    return {
        "model": against.models[place],
        **asdict(rate),
        "length_controlled_win_rate": controlled,
        "margin_weighted_win_rate": weighted,
        "empty_rate": mean(answers.empty[place][judged]),
        "ended_rate": mean(answers.ended[place][judged]),
        "mean_length": mean(answers.characters[place][judged]),
    }


def _deltas(against: Against, answers: Answers, place: int) -> tuple[Array, Array]:
    """A model's preferences where both lengths are known, and its answers' characters minus the baseline's."""
    delta = answers.characters[place] - answers.characters[answers.models.index(against.baseline)]
    both = ~np.isnan(against.preferences[place]) & ~np.isnan(delta)
    return against.preferences[place][both], delta[both]


def mean(values: Array) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = _known(values)
    return float(known.mean()) if len(known) else None


@dataclass(frozen=True)
class Ranking:
    """A Bradley-Terry leaderboard, best first; models without a score last. `rows`: as docs/cli.md shows them."""

    experiment: str
    prompts: str
    judge: str
    rows: list[dict[str, Any]]
    connected: bool
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        """As docs/cli.md shows it."""
        return _without(self)


def leaderboard(session: Session, experiment: Experiment, judge: str = "", prompts: str = "") -> Ranking:
    """All models by all that one judge said of any two. Raises NotFound, Invalid."""
    set_name = sets.choose_set(session, experiment, prompts)
    chosen = sets.choose_judge(experiment, sets.judges(session, experiment, set_name), judge)
    said = read_opinions(session, experiment, set_name, chosen)
    board = bradley_terry(said.first, said.second, said.preference, said.prompts, len(said.models))
    rows: list[dict[str, Any]] = [
        {
            "model": model,
            "score": standing.score,
            "elo": standing.elo,
            "ci_low": standing.ci_low,
            "ci_high": standing.ci_high,
            "games": standing.games,
        }
        for model, standing in zip(said.models, board.standings, strict=True)
    ]
    rows.sort(key=lambda row: (row["score"] is None, -(row["score"] or 0), row["model"]))
    return Ranking(experiment.name, set_name, chosen, rows, board.connected, warnings_of(board, said.models))


@dataclass(frozen=True)
class Agreements:
    """Judges against each other, those that share most first. `rows`: as docs/cli.md shows them."""

    experiment: str
    prompts: str
    rows: list[dict[str, Any]]
    krippendorff_alpha: float | None

    def as_json(self) -> dict[str, Any]:
        """As docs/cli.md shows it."""
        return _without(self)


def agreement(session: Session, experiment: Experiment, prompts: str = "") -> Agreements:
    """Each judge with each other, and all people pooled with each judge that is none. Raises NotFound, Invalid.

    Krippendorff's alpha is over all judges as they are: people are not pooled there.
    """
    set_name = sets.choose_set(session, experiment, prompts)
    judges = sets.judges(session, experiment, set_name)
    said = read_judgements(session, experiment, set_name, judges)
    alone = agreements.agreement(said.judge, said.unit, said.preference)
    rows = [_agreeing(pair, judges) for pair in alone.pairs]
    people = [place for place, name in enumerate(judges) if name.startswith(f"{sets.PEOPLE}:")]
    if people and len(people) < len(judges):
        pooled = np.where(np.isin(said.judge, people), len(judges), said.judge)
        together = agreements.agreement(pooled, said.unit, said.preference)
        names = [*judges, sets.PEOPLE]
        rows += [_agreeing(pair, names) for pair in together.pairs if len(judges) in (pair.judge_a, pair.judge_b)]
    rows.sort(key=lambda row: (-row["n"], row["judge_a"], row["judge_b"]))
    return Agreements(experiment.name, set_name, rows, alone.krippendorff_alpha)


def _agreeing(pair: agreements.JudgePair, names: list[str]) -> dict[str, Any]:
    return {**asdict(pair), "judge_a": names[pair.judge_a], "judge_b": names[pair.judge_b]}
