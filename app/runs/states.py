"""The run's life: its states, and the only function that changes them. docs/states.md draws this table.

Every change is one conditional UPDATE, which also takes the run's next event number: whoever comes second
changes nothing and is told so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import update
from sqlmodel import Session, col

from app.models import Event, Run

WAITING, QUEUED, RUNNING = "waiting", "queued", "running"
FINISHED, FAILED, STOPPED, SKIPPED = "finished", "failed", "stopped", "skipped"

STATES = (WAITING, QUEUED, RUNNING, FINISHED, FAILED, STOPPED, SKIPPED)
ENDED = (FINISHED, FAILED, STOPPED, SKIPPED)
UNSUCCESSFUL = (FAILED, STOPPED, SKIPPED)


@dataclass(frozen=True)
class Arrow:
    """One allowed change. An empty `sources` is the beginning."""

    letter: str
    sources: tuple[str, ...]
    target: str
    when: str


A = Arrow("A", (), WAITING, "launched while a parent is unfinished")
B = Arrow("B", (), QUEUED, "launched, and every parent has finished")
C = Arrow("C", (WAITING,), QUEUED, "the last parent finished")
D = Arrow("D", (WAITING,), SKIPPED, "a parent failed, was stopped or was skipped")
E = Arrow("E", (SKIPPED,), WAITING, "that parent is resumed or retried")
F = Arrow("F", (QUEUED,), RUNNING, "a worker claimed it: attempt + 1")
G = Arrow("G", (RUNNING,), QUEUED, "its worker or trainer died: it goes on from the last checkpoint")
H = Arrow("H", (RUNNING,), FAILED, "the trainer said why, or three attempts in a row died without a new checkpoint")
I = Arrow("I", (QUEUED, WAITING), STOPPED, "asked for before it ran")  # noqa: E741
J = Arrow("J", (RUNNING,), STOPPED, "asked for; it saved first")
K = Arrow("K", (RUNNING,), FINISHED, "exit code 0 and its outputs complete")
L = Arrow("L", (STOPPED, FAILED), QUEUED, "resumed from the last checkpoint, or retried from nothing")
M = Arrow("M", (STOPPED,), WAITING, "resumed or retried while a parent is unfinished")

ARROWS = (A, B, C, D, E, F, G, H, I, J, K, L, M)


def sentence(arrow: Arrow, attempt: int, facts: Mapping[str, Any]) -> str:
    """What the log says of a change. Pure. `facts`: what the row was given with it, such as `claim` and `fresh`."""
    worker = (facts.get("claim") or {}).get("worker", "a worker")
    again = "retried: begins again from nothing" if facts.get("fresh") else "resumed: goes on from the last checkpoint"
    return {
        "A": "launched; waiting for the runs that it needs",
        "B": "launched and queued",
        "C": "queued: the runs that it needs have finished",
        "D": "skipped: a run that it needs did not finish",
        "E": "waiting again: a run that it needs was resumed or retried",
        "F": f"attempt {attempt} runs on {worker}",
        "G": f"attempt {attempt} broke off; queued to go on from the last checkpoint",
        "H": "failed",
        "I": "stopped before it ran",
        "J": "stopped as asked; what was done is saved",
        "K": "finished",
        "L": again,
        "M": f"{again}, once the runs that it needs have finished",
    }[arrow.letter]


def begin(session: Session, run: Run, arrow: Arrow) -> None:
    """Put a new run on its first state (arrow A or B). Flushes, so that the run has its id."""
    assert not arrow.sources
    now = time.time()
    run.state, run.last_event = arrow.target, 1
    run.queued_at = now if arrow.target == QUEUED else None
    session.add(run)
    session.flush()
    assert run.id is not None
    _record(session, run.id, 1, run.attempt, arrow, now, {})


def move(
    session: Session, run_id: int, arrow: Arrow, *conditions: Any, reason: dict[str, Any] | None = None, **values: Any
) -> bool:
    """Follow an arrow, if the run is still at its foot and the further conditions hold. True if this call did it.

    `reason` is told in the event as its error; the row keeps an error only where `values` say so.
    """
    assert arrow.sources
    now = time.time()
    if arrow.target == QUEUED:
        values.setdefault("queued_at", now)
    values["finished_at"] = now if arrow.target in ENDED else None
    statement = (
        update(Run)
        .where(col(Run.id) == run_id, col(Run.state).in_(arrow.sources), *conditions)
        .values(state=arrow.target, last_event=Run.last_event + 1, **values)
        .returning(col(Run.last_event), col(Run.attempt))
        .execution_options(synchronize_session=False)
    )
    changed = session.execute(statement).one_or_none()
    if changed is None:
        return False
    number, attempt = changed
    _record(session, run_id, number, attempt, arrow, now, values, values.get("error") or reason)
    return True


def _record(
    session: Session, run_id: int, number: int, attempt: int, arrow: Arrow, now: float,
    facts: Mapping[str, Any], error: Any = None,
) -> None:  # fmt: skip
    body = {"state": arrow.target, "arrow": arrow.letter, "when": sentence(arrow, attempt, facts)}
    if error:
        body["error"] = error
    session.add(
        Event(
            run_id=run_id,
            number=number,
            attempt=attempt,
            seq=None,
            time=now,
            kind="state",
            step=None,
            body=orjson.dumps(body).decode(),
        )
    )
    session.flush()
