"""What the pages read of experiments."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, col, func, select

from app.models import Experiment, Run, RunParent


def list_experiments(session: Session, limit: int = 500) -> list[dict[str, Any]]:
    """Newest first, with their runs counted by state: two queries."""
    found = session.exec(select(Experiment).order_by(col(Experiment.id).desc()).limit(limit)).all()
    counted: dict[int, dict[str, int]] = {}
    statement = select(Run.experiment_id, Run.state, func.count()).group_by(col(Run.experiment_id), col(Run.state))
    for key, state, count in session.exec(statement):
        counted.setdefault(key, {})[state] = count
    return [
        {
            "id": each.id,
            "name": each.name,
            "question": each.question,
            "created_at": each.created_at,
            "states": counted.get(each.id or 0, {}),
            "runs": sum(counted.get(each.id or 0, {}).values()),
        }
        for each in found
    ]


def edges(session: Session, experiment_id: int) -> list[tuple[int, int]]:
    """(parent, child) of every run of an experiment that needs another."""
    statement = select(RunParent.parent_id, RunParent.run_id).join(Run, col(Run.id) == col(RunParent.run_id))
    return list(session.exec(statement.where(Run.experiment_id == experiment_id)))
