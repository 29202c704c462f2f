"""Reading events from the database, as the bytes that the stream sends. No transaction stays open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from sqlmodel import Session, col, select

from app.models import Event, Run

PAGE = 1000  # events that one replay query reads


def encode(row: Any) -> bytes:
    """One event as JSON: `{"run", "number", "attempt", "time", "kind", "step", "body"}`; the body is JSON already."""
    head = orjson.dumps(
        {
            "run": row.run_id,
            "number": row.number,
            "attempt": row.attempt,
            "time": row.time,
            "kind": row.kind,
            "step": row.step,
        }
    )
    return head[:-1] + b',"body":' + row.body.encode() + b"}"


def after(session: Session, run_id: int, number: int, limit: int = PAGE) -> list[bytes]:
    """The events of a run behind `number`, in order; at most `limit` of them."""
    columns = (
        Event.run_id, Event.number, Event.attempt, Event.time, Event.kind, Event.step, Event.body,
    )  # fmt: skip
    statement = (
        select(*columns)  # type: ignore[call-overload]
        .where(Event.run_id == run_id, Event.number > number)
        .order_by(col(Event.number))
        .limit(limit)
    )
    return [encode(row) for row in session.exec(statement)]


def last_numbers(session: Session, run_ids: Iterable[int]) -> dict[int, int]:
    """The number of each run's latest event; runs that do not exist are missing."""
    statement = select(Run.id, Run.last_event).where(col(Run.id).in_(list(run_ids)))
    return {run_id: number for run_id, number in session.exec(statement) if run_id is not None}
