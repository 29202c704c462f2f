"""What judges said of an experiment's answers, as arrays: read once, for whatever is counted from it.

Verdicts are as they were given; a judge that scores answers one by one has an opinion on every two of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlmodel import Session

from app.models import Experiment
from app.winrates.known import PROMPTS, RESPONSES, SCORES, VERDICTS
from app.winrates.sets import PEOPLE

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Opinions:
    """All verdicts of one judge (or of all people). Every array has a place for each verdict, in the order given.

    `prompts`: keys of the prompts; `first`, `second`: places in `models`; `preference`: 1 = the first is better;
    `margin`: how far the judge's scores lie apart, NaN where it gave none.
    """

    models: tuple[str, ...]
    prompts: Array
    first: Array
    second: Array
    preference: Array
    margin: Array

    def __len__(self) -> int:
        return len(self.prompts)

    def against(self, baseline: str) -> Against:
        """What is said of each other model and the baseline, several verdicts on one prompt averaged."""
        base = self.models.index(baseline)
        mine = (self.first == base) | (self.second == base)
        turned = self.first[mine] == base
        other = np.where(turned, self.second[mine], self.first[mine])
        preference = np.where(turned, 1 - self.preference[mine], self.preference[mine])
        keys, prompt = np.unique(self.prompts[mine], return_inverse=True)
        shape = len(self.models), len(keys)
        preferences, margins = np.full(shape, np.nan), np.full(shape, np.nan)
        place = other * len(keys) + prompt
        count = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
        there = count > 0
        for values, target in ((preference, preferences), (self.margin[mine], margins)):
            sums = np.bincount(place, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
            target[there] = sums[there] / count[there]
        return Against(baseline, self.models, keys, preferences, margins)


@dataclass(frozen=True)
class Against:
    """Preferences for each model over the baseline, (models, prompts), NaN where there is none; margins alike."""

    baseline: str
    models: tuple[str, ...]
    prompts: Array
    preferences: Array
    margins: Array

    def others(self) -> list[int]:
        """The models that were compared with the baseline."""
        return [place for place in range(len(self.models)) if not np.isnan(self.preferences[place]).all()]


@dataclass(frozen=True)
class Answers:
    """What is known of the answers, (models, prompts) each, NaN where there is none or nobody knows."""

    models: tuple[str, ...]
    prompts: Array
    characters: Array
    empty: Array
    ended: Array


def read_opinions(session: Session, experiment: Experiment, set_name: str, judge: str) -> Opinions:
    """All that a judge said of this prompt set. `human`: all people."""
    said = VERDICTS.c
    columns = (said.prompt_key, said.model_a, said.model_b, said.preference, said.score_a, said.score_b)
    who = said.judge.startswith(f"{PEOPLE}:") if judge == PEOPLE else said.judge == judge
    statement = select(*columns).join(PROMPTS, PROMPTS.c.id == said.prompt_key)
    statement = statement.where(*of_set(experiment, set_name), who).order_by(said.id)
    given = session.execute(statement).all()
    scored = scores_by(session, experiment, set_name, judge)
    models = tuple(dict.fromkeys([*(name for row in given for name in (row[1], row[2])), *(row[1] for row in scored)]))
    place = {name: index for index, name in enumerate(models)}
    gaps = [np.nan if None in (row[4], row[5]) else abs(row[4] - row[5]) for row in given]
    prompts, first, second, preference, margin = (
        np.array([row[0] for row in given], np.int64),
        np.array([place[row[1]] for row in given], np.int64),
        np.array([place[row[2]] for row in given], np.int64),
        np.array([row[3] for row in given], np.float64),
        np.array(gaps, np.float64),
    )
    if not scored:
        return Opinions(models, prompts, first, second, preference, margin)
    parts = [(prompts, first, second, preference, margin), compared(scored, place)]
    return Opinions(models, *(np.concatenate(each) for each in zip(*parts, strict=True)))


def of_set(experiment: Experiment, set_name: str) -> tuple[Any, Any]:
    """That a prompt is of this set, as conditions."""
    return PROMPTS.c.experiment_id == experiment.id, PROMPTS.c.set_name == set_name


def scores_by(session: Session, experiment: Experiment, set_name: str, judge: str) -> list[tuple[int, str, float]]:
    """(prompt, model, score) of a judge that scores answers one by one."""
    answer = RESPONSES.c
    statement = select(answer.prompt_key, answer.model, SCORES.c.score).join(SCORES, SCORES.c.response_id == answer.id)
    statement = statement.join(PROMPTS, PROMPTS.c.id == answer.prompt_key)
    statement = statement.where(*of_set(experiment, set_name), SCORES.c.judge == judge).order_by(answer.id)
    return cast(list[tuple[int, str, float]], session.execute(statement).all())


def compared(scored: Sequence[tuple[int, str, float]], place: dict[str, int]) -> tuple[Array, ...]:
    """Every two answers to a prompt by their scores: the higher one is better, equal ones tie.

    prompts, first, second, preference, margin; `place`: of each model, its number.
    """
    keys, prompt = np.unique(np.array([row[0] for row in scored], np.int64), return_inverse=True)
    table = np.full((len(place), len(keys)), np.nan)
    table[[place[row[1]] for row in scored], prompt] = [row[2] for row in scored]
    first, second = np.triu_indices(len(place), 1)
    a, b = table[first], table[second]
    pair, where = np.nonzero(~np.isnan(a) & ~np.isnan(b))
    gap = a[pair, where] - b[pair, where]
    return keys[where], first[pair], second[pair], (np.sign(gap) + 1) / 2, np.abs(gap)


def read_answers(session: Session, experiment: Experiment, set_name: str, models: Sequence[str]) -> Answers:
    """Lengths and ends of these models' answers; no text is read."""
    answer = RESPONSES.c
    statement = select(answer.prompt_key, answer.model, answer.characters, answer.empty, answer.ended)
    statement = statement.join(PROMPTS, PROMPTS.c.id == answer.prompt_key).where(*of_set(experiment, set_name))
    place = {name: index for index, name in enumerate(models)}
    rows = [row for row in session.execute(statement).all() if row[1] in place]
    keys, prompt = np.unique(np.array([row[0] for row in rows], np.int64), return_inverse=True)
    characters, empty, ended = (np.full((len(models), len(keys)), np.nan) for _ in range(3))
    for row, column in zip(rows, prompt, strict=True):
        at = place[row[1]], column
        characters[at], empty[at] = row[2], row[3]
        ended[at] = np.nan if row[4] is None else row[4]
    return Answers(tuple(models), keys, characters, empty, ended)


def at_prompts(answers: Answers, prompts: Array) -> Answers:
    """The same at these prompts, in their order; NaN where a prompt has no answer at all."""
    place = np.searchsorted(answers.prompts, prompts)
    place = np.minimum(place, max(0, len(answers.prompts) - 1))
    known = answers.prompts[place] == prompts if len(answers.prompts) else np.zeros(len(prompts), bool)
    shape = len(answers.models), len(prompts)

    def moved(values: Array) -> Array:
        found = np.full(shape, np.nan)
        if known.any():
            found[:, known] = values[:, place[known]]
        return found

    return Answers(answers.models, prompts, moved(answers.characters), moved(answers.empty), moved(answers.ended))
