"""The reaper: gives back the runs of workers that are gone, and announces queued runs again.

It lives in a worker's main process. `sweep` is called once a second with a monotonic clock's time; no wall clock
decides. Any number of reapers may run: all they do is conditional.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select as sql_select
from sqlmodel import col, select

from app.db import Database
from app.models import Run, RunParent
from app.runs import graph, lease, states
from app.settings import Settings
from training.errors import Failure
from training.rundir import RunDir
from worker.processes import ProcessId
from worker.trainer import made_progress

log = logging.getLogger(__name__)

DIED = Failure(code="worker_died", message="Its worker died.", hint="The worker's log says more.")
SILENT = Failure(code="worker_silent", message="Its worker gave no sign of life for the whole lease.")


@dataclass
class Watched:
    """How long something has been seen unchanged: seconds of this reaper's own watching."""

    mark: Any
    seconds: float = 0.0


@dataclass
class State:
    """What a reaper remembers between sweeps."""

    leases: dict[int, Watched] = field(default_factory=dict)  # of running runs: (attempt, beat)
    bells: dict[int, Watched] = field(default_factory=dict)  # of queued runs: since they were announced last
    swept: float | None = None  # when the last sweep was


class Reaper:
    """`ring` announces a queued run; `free` says how many runs this worker could begin now."""

    def __init__(
        self, database: Database, settings: Settings, ring: Callable[[int], None], free: Callable[[], int]
    ) -> None:
        self.database, self.settings, self._ring, self._free = database, settings, ring, free

    def sweep(self, state: State, now: float) -> bool:
        """Look once. True where something was done. Raises SQLAlchemy's errors where the database is out of reach.

        Time counts only while it is watched: after a gap, as when the database was away, a lease gets its chance.
        """
        first = state.swept is None
        passed = 0.0 if state.swept is None else min(now - state.swept, self.settings.lease_seconds / 4)
        with self.database.read() as session:
            columns = (col(Run.id), col(Run.attempt), col(Run.beat), col(Run.claim))
            running = session.execute(sql_select(*columns).where(col(Run.state) == states.RUNNING)).all()
            queue = select(Run.id, Run.attempt).where(Run.state == states.QUEUED)
            queued = session.exec(queue.order_by(col(Run.priority).desc(), col(Run.queued_at), col(Run.id))).all()
            waiting = session.exec(select(Run.id).where(Run.state == states.WAITING)).all()
            ready = [run_id for run_id in waiting if run_id is not None and _parents_ended(session, run_id)]
        state.swept = now
        done = self._leases(state, running, passed)
        bells = [(key, attempt) for key, attempt in queued if key is not None]
        done = self._bells(state, bells, passed, first=first) or done
        return self._repair(ready) or done

    def _leases(self, state: State, running: Any, passed: float) -> bool:
        """Give back what a dead process of this machine holds, and what has not beaten for the whole lease."""
        _forget(state.leases, {run_id for run_id, *_ in running})
        done = False
        for run_id, attempt, beat, claim in running:
            watched = _watch(state.leases, run_id, (attempt, beat), passed)
            holder = _holder(claim)
            if holder is not None and holder.provably_dead:
                done = self._expire(run_id, attempt, beat, DIED) or done
            elif watched.seconds >= self.settings.lease_seconds:
                done = self._expire(run_id, attempt, beat, SILENT) or done
        return done

    def _expire(self, run_id: int, attempt: int, beat: int, failure: Failure) -> bool:
        new = made_progress(RunDir(self.settings.run_folder(run_id)), attempt)
        with self.database.write() as session:
            done = lease.expire(session, run_id, attempt, beat, failure, new_checkpoint=new)
        if done:
            log.warning("Run %s, attempt %s: %s", run_id, attempt, failure.message)
        return done

    def _bells(self, state: State, queued: list[tuple[int, int]], passed: float, *, first: bool) -> bool:
        """Announce queued runs again, as many as this worker could begin: the others find them when they are done.

        A worker that has just begun asks for what was queued before it at once.
        """
        _forget(state.bells, {run_id for run_id, _ in queued})
        for run_id, attempt in queued:
            _watch(state.bells, run_id, attempt, passed)
        late = [run_id for run_id, _ in queued if first or state.bells[run_id].seconds >= self.settings.ring_seconds]
        chosen = late[: self._free()] if late else []
        for run_id in chosen:
            state.bells[run_id].seconds = 0.0
            self._ring(run_id)
        return bool(chosen)

    def _repair(self, ready: list[int]) -> bool:
        """Move on waiting runs whose parents have all ended, should their last parent's worker have missed them."""
        for run_id in ready:
            with self.database.write() as session:
                graph.reconsider(session, run_id)
        return bool(ready)


def _parents_ended(session: Any, run_id: int) -> bool:
    parents = select(Run.state).join(RunParent, col(RunParent.parent_id) == col(Run.id))
    found = session.exec(parents.where(RunParent.run_id == run_id)).all()
    return all(state == states.FINISHED for state in found) or any(state in states.UNSUCCESSFUL for state in found)


def _watch(seen: dict[int, Watched], run_id: int, mark: Any, passed: float) -> Watched:
    """Count the time for which a mark has not changed."""
    watched = seen.get(run_id)
    if watched is None or watched.mark != mark:
        watched = seen[run_id] = Watched(mark)
    else:
        watched.seconds += passed
    return watched


def _forget(seen: dict[int, Watched], present: set[int]) -> None:
    for gone in seen.keys() - present:
        del seen[gone]


def _holder(claim: Any) -> ProcessId | None:
    try:
        return ProcessId.model_validate(claim)
    except ValidationError:
        return None
