"""What a person may do to runs: launch, stop, resume, retry, delete. Letters are those of docs/states.md.

Each verb takes a write session (`Database.write`), which commits afterwards and then rings for queued runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from app.db import ring_after_commit
from app.errors import Conflict, NotFound
from app.models import Event, Experiment, Run, RunParent
from app.runs import graph, states
from app.winrates.intake import forget_answers
from training.config import StageConfig


@dataclass(frozen=True)
class NewRun:
    """A run to launch: its config is valid, and its inputs were found (app/runs/inputs.py)."""

    name: str
    config: StageConfig
    parents: Sequence[int] = ()
    tags: list[str] = field(default_factory=list)
    idempotency_key: str | None = None


def get(session: Session, run_id: int) -> Run:
    """Raises NotFound."""
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound(f"There is no run {run_id}.", "It may have been deleted; see the list of runs.")
    return run


def launch(session: Session, experiment: Experiment, new: NewRun) -> Run:
    """Make the row, waiting (A) or queued (B). The same idempotency key again gives the same run again.

    Raises Conflict where the experiment has a run of that name.
    """
    known = _launched_before(session, experiment, new)
    if known is not None:
        return known
    assert experiment.id is not None
    run = Run(
        experiment_id=experiment.id,
        name=new.name,
        stage=new.config.stage,
        config=new.config.model_dump(mode="json"),
        tags=new.tags,
        created_at=time.time(),
        idempotency_key=new.idempotency_key,
        priority=new.config.priority,
        state=states.QUEUED,
    )
    ready = not _unfinished(session, new.parents)
    try:
        with session.begin_nested():
            states.begin(session, run, states.B if ready else states.A)
    except IntegrityError:  # another launch got there first, just now
        known = _launched_before(session, experiment, new)
        if known is None:
            raise
        return known
    assert run.id is not None
    for parent in dict.fromkeys(new.parents):
        session.add(RunParent(run_id=run.id, parent_id=parent))
    session.flush()
    if ready:
        ring_after_commit(session, run.id)
    else:
        graph.reconsider(session, run.id)  # a parent may have failed already
    session.refresh(run)
    return run


def _launched_before(session: Session, experiment: Experiment, new: NewRun) -> Run | None:
    """The run of this idempotency key, if there is one. Raises Conflict where the name is taken."""
    # The name first: where the same request has just been committed by somebody else, its key is then seen, too.
    taken = session.exec(select(Run.id).where(Run.experiment_id == experiment.id, Run.name == new.name)).first()
    if new.idempotency_key is not None:
        known = session.exec(select(Run).where(Run.idempotency_key == new.idempotency_key)).one_or_none()
        if known is not None:
            return known
    if taken is not None:
        raise Conflict(
            f"The experiment “{experiment.name}” has a run “{new.name}” already.",
            "Choose another name.",
            fields={"name": "Taken: choose another."},
        )
    return None


def _unfinished(session: Session, run_ids: Sequence[int]) -> list[Run]:
    if not run_ids:
        return []
    return [run for run in session.exec(select(Run).where(col(Run.id).in_(run_ids))) if run.state != states.FINISHED]


def stop(session: Session, run_id: int) -> Run:
    """Queued or waiting: stopped now (I). Running: a wish, which its worker reads at the next beat (J)."""
    run = get(session, run_id)
    if states.move(session, run_id, states.I):
        graph.settle(session, run_id)
    elif not _wish_to_stop(session, run_id):
        session.refresh(run)
        raise Conflict(f"Run {run_id} is {run.state}: there is nothing to stop.")
    session.refresh(run)
    return run


def _wish_to_stop(session: Session, run_id: int) -> bool:
    wish = update(Run).where(col(Run.id) == run_id, col(Run.state) == states.RUNNING)
    wish = wish.values(desired_state=states.STOPPED).execution_options(synchronize_session=False)
    return session.execute(wish.returning(col(Run.id))).one_or_none() is not None


def resume(session: Session, run_id: int) -> Run:
    """Go on from the last checkpoint (L, or M while a parent is unfinished)."""
    return _again(session, run_id, fresh=False)


def retry(session: Session, run_id: int) -> Run:
    """Start again from nothing (L, or M while a parent is unfinished). The journal goes on; checkpoints go."""
    return _again(session, run_id, fresh=True)


def _again(session: Session, run_id: int, *, fresh: bool) -> Run:
    run = get(session, run_id)
    ready = all(parent.state == states.FINISHED for parent in graph.parents(session, run_id))
    values: dict[str, Any] = {"fresh": fresh or run.fresh, "fruitless": 0, "error": None, "desired_state": None}
    if fresh:
        values |= {"started_at": None, "step": 0, "total_steps": None, "phase": "", "progress": None, "summary": {}}
    if not states.move(session, run_id, states.L if ready else states.M, **values):
        session.refresh(run)
        verb = "retried" if fresh else "resumed"
        raise Conflict(f"Run {run_id} is {run.state}: only a stopped or failed run can be {verb}.")
    graph.revive(session, run_id)
    if ready:
        ring_after_commit(session, run_id)
    else:
        graph.reconsider(session, run_id)
    session.refresh(run)
    return run


def doomed(session: Session, run_id: int) -> list[Run]:
    """What `delete` would delete: the run, and all that need it."""
    return [get(session, run_id), *graph.descendants(session, run_id)]


def delete(session: Session, run_id: int, *, with_dependants: bool = False) -> list[int]:
    """Delete rows; the caller then removes these runs' directories. Raises Conflict while one of them is running,
    or where others depend on the run and `with_dependants` is not given."""
    runs = doomed(session, run_id)
    if len(runs) > 1 and not with_dependants:
        names = ", ".join(run.name for run in runs[1:6])
        raise Conflict(f"{len(runs) - 1} other runs need this one ({names}).", "Delete it with them, or not at all.")
    running = [run.name for run in runs if run.state == states.RUNNING]
    if running:
        raise Conflict(f"{', '.join(running)} is still running.", "Stop it first.")
    keys = [run.id for run in runs if run.id is not None]
    # A worker may have claimed one of them since: the condition is checked again by the statement itself.
    forget_answers(session, keys)
    session.execute(sql_delete(Event).where(col(Event.run_id).in_(keys)))
    session.execute(sql_delete(RunParent).where(col(RunParent.run_id).in_(keys) | col(RunParent.parent_id).in_(keys)))
    gone = session.execute(sql_delete(Run).where(col(Run.id).in_(keys), col(Run.state) != states.RUNNING))
    if gone.rowcount != len(keys):  # type: ignore[attr-defined]
        raise Conflict("One of these runs was started just now.", "Stop it first, then delete again.")
    return keys
