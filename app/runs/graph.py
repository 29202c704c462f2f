"""What a run's change of state means for the runs that wait for it."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.db import ring_after_commit
from app.models import Run, RunParent
from app.runs import states


def parents(session: Session, run_id: int) -> list[Run]:
    statement = select(Run).join(RunParent, col(RunParent.parent_id) == col(Run.id)).where(RunParent.run_id == run_id)
    return list(session.exec(statement.order_by(col(Run.id))))


def children(session: Session, run_id: int) -> list[Run]:
    statement = select(Run).join(RunParent, col(RunParent.run_id) == col(Run.id)).where(RunParent.parent_id == run_id)
    return list(session.exec(statement.order_by(col(Run.id))))


def descendants(session: Session, run_id: int) -> list[Run]:
    """All runs that need this one, directly or not; nearest first."""
    found: dict[int, Run] = {}
    edge = [run_id]
    while edge:
        edge = [key for parent in edge for child in children(session, parent) if (key := _note(found, child))]
    return list(found.values())


def _note(found: dict[int, Run], run: Run) -> int | None:
    assert run.id is not None
    if run.id in found:
        return None
    found[run.id] = run
    return run.id


def settle(session: Session, run_id: int) -> None:
    """After a run ended: queue the children that waited for it alone (C), or skip all that needed it (D)."""
    for child in children(session, run_id):
        assert child.id is not None
        reconsider(session, child.id)


def reconsider(session: Session, run_id: int) -> None:
    """Queue or skip a waiting run, as its parents now stand.

    The row is locked before its parents are read: of two parents that finish at once, the second sees the first.
    """
    lock = select(Run.state).where(col(Run.id) == run_id).with_for_update()
    if session.exec(lock).one_or_none() != states.WAITING:
        return
    stand = session.exec(
        select(Run.state).join(RunParent, col(RunParent.parent_id) == col(Run.id)).where(RunParent.run_id == run_id)
    ).all()
    if any(state in states.UNSUCCESSFUL for state in stand):
        if states.move(session, run_id, states.D):
            settle(session, run_id)
    elif all(state == states.FINISHED for state in stand) and states.move(session, run_id, states.C):
        ring_after_commit(session, run_id)


def revive(session: Session, run_id: int) -> None:
    """After a run was resumed or retried: what was skipped because of it waits again (E)."""
    for child in children(session, run_id):
        assert child.id is not None
        if states.move(session, child.id, states.E):
            revive(session, child.id)
            reconsider(session, child.id)  # another parent may still stand in the way
