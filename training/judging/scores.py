"""What judges that score answers one by one have in common: their works, rows, and their own noise. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations
from statistics import fmean
from typing import Any

from training.judging.answers import Answers
from training.judging.judge import Judged, work_key

FIRST, SECOND = 1, 2
"""An answer is scored once, and a share of them again."""


def score_key(prompt_id: str, model: str, time: int = FIRST) -> str:
    return work_key(prompt_id, model, time)


def score_works(answers: Answers, twice: Collection[str]) -> list[str]:
    """The keys of all answers, then of those to the prompts that are judged twice, again."""
    first = [score_key(question.prompt_id, model) for question, model in answers.each()]
    again = [
        score_key(question.prompt_id, model, SECOND)
        for question, model in answers.each()
        if question.prompt_id in twice
    ]
    return first + again


def score_rows(answers: Answers, done: Mapping[str, Any], judge: str, twice: Collection[str] = ()) -> Judged:
    """The rows of scores, in the order of the answers, with their mean; a result of None is no score."""
    rows = [
        {"prompt_id": question.prompt_id, "model": model, "judge": judge, "score": score}
        for question, model in answers.each()
        if (score := done.get(score_key(question.prompt_id, model))) is not None
    ]
    judged = Judged(scores=rows, values={"judged": len(rows)})
    if rows:
        judged.values["score_mean"] = fmean(row["score"] for row in rows)
    _measure_noise(answers, done, twice, judged)
    return judged


def _measure_noise(answers: Answers, done: Mapping[str, Any], twice: Collection[str], judged: Judged) -> None:
    """How far a second score lies from the first, and how often two answers to a prompt change their order by it.

    A score alone has no other outcome, only another number: what a judge's noise changes is who of two is preferred.
    """
    differences: list[float] = []
    changed: list[bool] = []
    for question in answers.questions:
        if question.prompt_id not in twice:
            continue
        pairs = [_both(done, question.prompt_id, model) for model in answers.models if model in question.answers]
        known = [pair for pair in pairs if pair is not None]
        differences += [abs(second - first) for first, second in known]
        changed += [_sign(a[0] - b[0]) != _sign(a[1] - b[1]) for a, b in combinations(known, 2)]
    if differences:
        judged.values["repeat_difference"] = fmean(differences)
        sentence = (
            f"{len(differences):,} answers were scored twice: the scores differ by {fmean(differences):.2g} on average"
        )
        if changed:
            judged.values["repeat_disagreement"] = fmean(changed)
            sentence += (
                f", and of {len(changed):,} pairs of answers to a prompt, {fmean(changed):.1%} change their order"
            )
        judged.words.append(("info", f"{sentence}."))


def _both(done: Mapping[str, Any], prompt_id: str, model: str) -> tuple[float, float] | None:
    first, second = (done.get(score_key(prompt_id, model, time)) for time in (FIRST, SECOND))
    return None if first is None or second is None else (first, second)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
