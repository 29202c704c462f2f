"""The worker's verbs on runs. Each is a conditional UPDATE that says `WHERE attempt = :mine`.

A worker that slept through its lease changes nothing and is told so: it is fenced. Letters: docs/states.md.
Each verb takes a write session (`Database.write`) and returns True where this call changed the run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, update
from sqlmodel import Session, col, select

from app.db import ring_after_commit
from app.models import Run
from app.runs import graph, states
from training.errors import Failure

MAX_FRUITLESS = 3  # attempts in a row that died and made no new checkpoint
TOO_OFTEN = "Three attempts in a row died and made no new checkpoint. The last one:"


@dataclass(frozen=True)
class Beat:
    """What a heartbeat told the worker."""

    alive: bool  # False: fenced; the run is not this attempt's any more
    stop: bool  # somebody asked the run to stop


def claim_next(session: Session, claim: dict[str, Any]) -> Run | None:
    """Take the queued run that is next (F): highest priority, then longest queued. None where nothing is queued."""
    best = (
        select(Run.id)
        .where(Run.state == states.QUEUED)
        .order_by(col(Run.priority).desc(), col(Run.queued_at), col(Run.id))
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    while (run_id := session.exec(best).one_or_none()) is not None:
        taken = states.move(
            session,
            run_id,
            states.F,
            attempt=Run.attempt + 1,
            beat=0,
            claim=claim,
            error=None,
            started_at=func.coalesce(col(Run.started_at), time.time()),
        )
        if taken:
            return session.get(Run, run_id, populate_existing=True)
    return None


def beat(session: Session, run_id: int, attempt: int) -> Beat:
    """Say that this attempt lives, and hear whether it should stop."""
    statement = (
        update(Run)
        .where(*_mine(run_id, attempt))
        .values(beat=Run.beat + 1)
        .returning(col(Run.desired_state))
        .execution_options(synchronize_session=False)
    )
    found = session.execute(statement).one_or_none()
    return Beat(alive=found is not None, stop=found is not None and found[0] == states.STOPPED)


def begun_afresh(session: Session, run_id: int, attempt: int) -> bool:
    """What an earlier attempt left is removed: the next attempts go on from this one's checkpoints."""
    statement = update(Run).where(*_mine(run_id, attempt)).values(fresh=False).returning(col(Run.id))
    return session.execute(statement.execution_options(synchronize_session=False)).one_or_none() is not None


def finish(session: Session, run_id: int, attempt: int) -> bool:
    """Its outputs are complete (K)."""
    return _end(session, run_id, attempt, states.K)


def fail(session: Session, run_id: int, attempt: int, failure: Failure) -> bool:
    """The trainer said why it cannot go on (H)."""
    return _end(session, run_id, attempt, states.H, error=failure.model_dump())


def stopped(session: Session, run_id: int, attempt: int) -> bool:
    """It was asked to stop, and did (J)."""
    return _end(session, run_id, attempt, states.J)


def give_back(session: Session, run_id: int, attempt: int, failure: Failure, *, behind: bool = False) -> bool:
    """Another attempt is to go on with it, through no fault of the run: say, its worker shuts down (G).

    It keeps its place in the queue, or goes `behind` the others. Where somebody asked it to stop meanwhile, it is
    stopped instead (J).
    """
    place = {"queued_at": time.time()} if behind else {}
    again = _again(session, run_id, attempt, (), failure.model_dump(), place)
    return again or _stopped_after_all(session, run_id, attempt, ())


def died(session: Session, run_id: int, attempt: int, failure: Failure, *conditions: Any, new_checkpoint: bool) -> bool:
    """The attempt died: it is tried again (G), unless three in a row made no new checkpoint (H).

    Where somebody asked it to stop, it is stopped instead (J).
    """
    reason = failure.model_dump()
    if new_checkpoint:
        again = _again(session, run_id, attempt, conditions, reason, {"fruitless": 0})
    else:
        more = {"fruitless": Run.fruitless + 1}
        again = _again(session, run_id, attempt, (*conditions, Run.fruitless < MAX_FRUITLESS - 1), reason, more)
        last = failure.model_copy(update={"message": f"{TOO_OFTEN} {failure.message}"}).model_dump()
        unwished = col(Run.desired_state).is_(None)
        again = again or _end(session, run_id, attempt, states.H, *conditions, unwished, error=last, **more)
    return again or _stopped_after_all(session, run_id, attempt, conditions)


def expire(
    session: Session, run_id: int, attempt: int, beat_seen: int, failure: Failure, *, new_checkpoint: bool
) -> bool:
    """As `died`, said by another than its worker; nothing, if the worker has given a sign of life since."""
    return died(session, run_id, attempt, failure, Run.beat == beat_seen, new_checkpoint=new_checkpoint)


def _mine(run_id: int, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return col(Run.id) == run_id, col(Run.attempt) == attempt, col(Run.state) == states.RUNNING


def _end(session: Session, run_id: int, attempt: int, arrow: states.Arrow, *conditions: Any, **values: Any) -> bool:
    values = {"claim": None, "desired_state": None, "error": None, **values}
    done = states.move(session, run_id, arrow, Run.attempt == attempt, *conditions, **values)
    if done:
        graph.settle(session, run_id)
    return done


def _again(
    session: Session,
    run_id: int,
    attempt: int,
    conditions: tuple[Any, ...],
    reason: dict[str, Any],
    values: dict[str, Any],
) -> bool:
    values = {"claim": None, "queued_at": Run.queued_at, **values}
    wanted = (Run.attempt == attempt, col(Run.desired_state).is_(None), *conditions)
    done = states.move(session, run_id, states.G, *wanted, reason=reason, **values)
    if done:
        ring_after_commit(session, run_id)
    return done


def _stopped_after_all(session: Session, run_id: int, attempt: int, conditions: tuple[Any, ...]) -> bool:
    return _end(session, run_id, attempt, states.J, Run.desired_state == states.STOPPED, *conditions)
