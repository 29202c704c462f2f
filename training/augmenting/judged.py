"""The scores of candidates: each that can be used goes to the judge, as the answer of a model that bears its number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from training.augmenting.funnel import NewPrompt
from training.augmenting.works import Works
from training.config import AugmentConfig
from training.journal import Journal
from training.judging.answers import Answers, Question
from training.judging.judge import Judged
from training.judging.opening import open_judge
from training.rundir import RunDir, RunFile

PHASE = "judging"
TOGETHER = 256  # answers that are kept at once


def questions(prompts: Sequence[NewPrompt], references: dict[str, str]) -> Answers:
    """What the judge is given: the prompts with two answers at least that can be used, and these.

    `references`: right answers, by prompt id.
    """
    found = []
    for each in prompts:
        answers = {
            str(number): candidate.text
            for number, candidate in enumerate(each.candidates, 1)
            if candidate.text.strip() and candidate.ended
        }
        if len(answers) > 1:
            found.append(Question(each.prompt_id, each.messages, references.get(each.prompt_id), answers))
    models = sorted({model for question in found for model in question.answers}, key=int)
    return Answers(found, models)


def judge(
    config: AugmentConfig, prompts: Sequence[NewPrompt], references: dict[str, str], works: Works, run: RunFile,
    run_dir: RunDir, journal: Journal,
) -> list[NewPrompt]:  # fmt: skip
    """The prompts with their candidates' scores. Raises TrainingError, Stopped."""
    answers = questions(prompts, references)
    if not answers.questions:
        return list(prompts)
    opened = open_judge(config, run, run_dir, answers, frozenset(), journal)
    works.same("judge", opened.identity, "what judges the answers")
    keys, noun = opened.works(), f"{opened.noun}s"
    left = works.begin(PHASE, keys, noun, opened.costs)
    for some in parts(keys, left, opened.costs):
        made: dict[str, Any] = {}
        for results in opened.do(some, works.log.begin, works.stop):
            if opened.costs:
                works.keep(PHASE, results, keys, noun)
            else:
                made |= results
        works.keep(PHASE, made, keys, noun)
    judged = opened.conclude({key: works.log.done[key] for key in keys})
    works.end(PHASE, keys, noun, **judged.values)
    for level, sentence in judged.words:
        journal.log(sentence, level)
    return with_scores(prompts, judged)


def parts(keys: Sequence[str], left: Sequence[str], costs: bool) -> list[list[str]]:
    """What is judged together. Of a model that runs here the last bits of a score depend on what is scored beside it:
    so parts are cut of all works, in every attempt alike, and one of which some are missing is judged again.
    """
    if costs:
        return [list(left)]
    missing = set(left)
    cut = [list(keys[start : start + TOGETHER]) for start in range(0, len(keys), TOGETHER)]
    return [part for part in cut if not missing.isdisjoint(part)]


def with_scores(prompts: Sequence[NewPrompt], judged: Judged) -> list[NewPrompt]:
    """The candidates with what the judge gave them: its score, or the mean preference over all pairs with the others."""
    given: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in judged.scores:
        given[row["prompt_id"], row["model"]].append(row["score"])
    for row in judged.verdicts:
        given[row["prompt_id"], row["model_a"]].append(row["preference"])
        given[row["prompt_id"], row["model_b"]].append(1 - row["preference"])
    scores = {place: fmean(values) for place, values in given.items()}
    return [
        replace(
            each,
            candidates=tuple(
                replace(candidate, score=scores.get((each.prompt_id, str(number))))
                for number, candidate in enumerate(each.candidates, 1)
            ),
        )
        for each in prompts
    ]
