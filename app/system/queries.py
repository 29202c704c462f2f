"""What is seen of workers, devices and the queue."""

from __future__ import annotations

import time
from typing import Any

from sqlmodel import Session, col, func, select

from app.models import Dataset, Experiment, Run, Worker
from app.runs import queries as runs
from app.runs import states

SEEN = 60.0  # seconds after which a silent worker is called so


def frame(session: Session) -> dict[str, Any]:
    """What stands in every page's side: counts, and the first worker's first device. Three queries."""
    active = select(Run.state, func.count()).where(col(Run.state).in_(runs.ACTIVE)).group_by(col(Run.state))
    counts = dict(session.exec(active).all())
    workers = [worker for worker in session.exec(select(Worker).order_by(Worker.name)) if is_alive(worker)]
    datasets = session.exec(select(func.count(func.distinct(Dataset.name)))).one()
    device = workers[0].devices[0] if workers and workers[0].devices else None
    return {
        "running": counts.get(states.RUNNING, 0),
        "queued": counts.get(states.QUEUED, 0) + counts.get(states.WAITING, 0),
        "workers": len(workers),
        "datasets": datasets,
        "worker": workers[0].name if workers else "",
        "device": device,
    }


def is_alive(worker: Worker) -> bool:
    return worker.seen_at > time.time() - SEEN


def workers(session: Session) -> list[dict[str, Any]]:
    """All workers that were seen, those alive first, each with its devices and the runs on them."""
    running = {
        (claim.get("worker"), claim.get("device")): row
        for row, claim in (
            (runs.row(run, name), run.claim or {})
            for run, name in session.exec(
                select(Run, Experiment.name).join(Experiment).where(Run.state == states.RUNNING)
            )
        )
    }
    found = []
    for worker in session.exec(select(Worker).order_by(col(Worker.seen_at).desc()).limit(200)):
        devices = [{**device, "run": running.get((worker.name, device.get("key")))} for device in worker.devices]
        found.append({
            "name": worker.name, "host": worker.host, "pid": worker.pid, "started_at": worker.started_at,
            "seen_at": worker.seen_at, "alive": is_alive(worker), "devices": devices,
        })  # fmt: skip
    return sorted(found, key=lambda each: (not each["alive"], each["name"]))


def queue(session: Session) -> list[dict[str, Any]]:
    """Queued runs in the order in which they will run, then those that wait for another; 500 at most."""
    statement = (
        select(Run, Experiment.name)
        .join(Experiment)
        .where(col(Run.state).in_((states.QUEUED, states.WAITING)))
        .order_by(col(Run.state), col(Run.priority).desc(), col(Run.queued_at), col(Run.id))
        .limit(500)
    )
    return [runs.row(run, name) for run, name in session.exec(statement)]
