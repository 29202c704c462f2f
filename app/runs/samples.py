"""A run's samples: what the model answered to its fixed prompts, at which steps. A later attempt counts as in curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.models import Event
from app.runs import queries
from app.runs.series import standing


@dataclass(frozen=True)
class Mark:
    """Where an event stands: its number, attempt and step, and whether it is a sample."""

    number: int
    attempt: int
    step: int
    is_sample: bool


def marks(session: Session, run_id: int) -> list[Mark]:
    """The samples of a run that stand, in order: none of a step that a later attempt has yet to reach."""
    first = select(func.min(Event.number)).where(Event.run_id == run_id, Event.kind == "metrics")
    firsts = session.exec(first.group_by(col(Event.attempt))).all()
    statement = (
        select(Event.number, Event.attempt, Event.step, Event.kind)
        .where(Event.run_id == run_id, (col(Event.kind) == "sample") | col(Event.number).in_(firsts))
        .order_by(col(Event.number))
    )
    found = [
        Mark(number, attempt, step or 0, kind == "sample") for number, attempt, step, kind in session.exec(statement)
    ]
    return [mark for mark in standing(found) if mark.is_sample]


def at_step(session: Session, run_id: int, found: list[Mark], step: int) -> list[dict[str, Any]]:
    """The answers at a step, by prompt; of two attempts' answers, the later."""
    numbers = [mark.number for mark in found if mark.step == step]
    statement = select(Event).where(Event.run_id == run_id, col(Event.number).in_(numbers)).order_by(col(Event.number))
    answers = {event["body"].get("index"): event for event in map(queries.parsed, session.exec(statement))}
    return [answers[index] for index in sorted(answers, key=str)]
