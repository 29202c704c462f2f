"""What all judges said, unit by unit, as arrays: read once, for how far they agree.

A unit is one prompt with two models. Cohen's kappa and Krippendorff's alpha depend on which of the two is called the
first, so every unit is seen as its first verdict has it: whatever other judges say of other units changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlmodel import Session

from app.models import Experiment
from app.winrates.known import PROMPTS, VERDICTS
from app.winrates.opinions import Array, compared, of_set, scores_by

Part = tuple[Array, Array, Array, Array, Array]  # judge, prompt, first model, second model, preference


@dataclass(frozen=True)
class Judgements:
    """Each array has a place for each verdict: who, on which unit, and the preference for the unit's first model."""

    judge: Array
    unit: Array
    preference: Array


def read_judgements(session: Session, experiment: Experiment, set_name: str, judges: Sequence[str]) -> Judgements:
    """All verdicts in the order given, then what judges that score would say. `judge`: places in `judges`."""
    models: dict[str, int] = {}
    place = {name: number for number, name in enumerate(judges)}
    parts = [_given(session, experiment, set_name, place, models)]
    for judge in judges:
        scored = scores_by(session, experiment, set_name, judge)
        if scored:
            for row in scored:
                models.setdefault(row[1], len(models))
            prompts, first, second, preference, _ = compared(scored, models)
            parts.append((np.full(len(prompts), place[judge]), prompts, first, second, preference))
    judge_of, prompts, first, second, preference = (np.concatenate(each) for each in zip(*parts, strict=True))
    low, high = np.minimum(first, second), np.maximum(first, second)
    unit = (prompts * len(models) + low) * len(models) + high
    _, at, unit = np.unique(unit, return_index=True, return_inverse=True)
    turned = first != first[at][unit]
    return Judgements(judge_of, unit, np.where(turned, 1 - preference, preference))


def _given(
    session: Session, experiment: Experiment, set_name: str, place: dict[str, int], models: dict[str, int]
) -> Part:
    """Verdicts as they stand in the database; models that are new get places."""
    said = VERDICTS.c
    statement = select(said.judge, said.prompt_key, said.model_a, said.model_b, said.preference)
    statement = statement.join(PROMPTS, PROMPTS.c.id == said.prompt_key).where(*of_set(experiment, set_name))
    rows = [
        (place[judge], prompt, models.setdefault(a, len(models)), models.setdefault(b, len(models)), preference)
        for judge, prompt, a, b, preference in session.execute(statement.order_by(said.id)).all()
    ]
    judge_of, prompts, first, second, preference = zip(*rows, strict=True) if rows else ((),) * 5
    whole = (np.array(each, np.int64) for each in (judge_of, prompts, first, second))
    return (*whole, np.array(preference, np.float64))  # type: ignore[return-value]
