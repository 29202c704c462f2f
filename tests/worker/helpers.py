"""Runs, attempts and looks at rows, for the worker's tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlmodel import select

from app.db import Database
from app.experiments import service as experiments
from app.models import Event, Run
from app.runs import lease, service
from app.settings import Settings
from training.config import parse_config
from training.rundir import RunDir
from worker.devices import CPU
from worker.launcher import Attempt

SCRIPTED = Path(__file__).parent / "scripted_trainer.py"
DONE = "run_dir.model.mkdir()"
CLAIM: dict[str, Any] = {"worker": "test", "device": "cpu"}


def launch(
    database: Database, settings: Settings, name: str = "run", parents: tuple[int, ...] = (), **more: Any
) -> int:
    """A row, as the form would make it. Returns its id."""
    data = settings.home / "chats.jsonl"
    if not data.exists():
        data.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    config = parse_config({"stage": "sft", "model": "new:micro", "dataset": f"path:{data}", **more})
    with database.write() as session:
        experiment = experiments.get_or_create(session, "tests")
        run = service.launch(session, experiment, service.NewRun(name, config, parents))
    assert run.id is not None
    return run.id


def claim(database: Database, claim: dict[str, Any] | None = None) -> Run | None:
    with database.write() as session:
        return lease.claim_next(session, claim or CLAIM)


def scripted(script: str) -> list[str]:
    """The command that starts a scripted trainer."""
    return [sys.executable, str(SCRIPTED), script]


def attempt(
    database: Database, settings: Settings, script: str, leaving: Callable[[], bool] = lambda: False
) -> Attempt:
    """Claim the next run, for a trainer that follows the script."""
    run = claim(database)
    assert run is not None
    return Attempt(database, settings, run, CPU, leaving, scripted(script))


def row(database: Database, run_id: int) -> Run:
    with database.read() as session:
        return session.get_one(Run, run_id)


def events(database: Database, run_id: int, *kinds: str) -> list[Event]:
    with database.read() as session:
        found = session.exec(select(Event).where(Event.run_id == run_id).order_by(Event.number)).all()
    return [event for event in found if not kinds or event.kind in kinds]


def shipped_exactly_once(database: Database, settings: Settings, run_id: int) -> bool:
    """Every whole line of the journal is one event, in order; and events are numbered without gaps."""
    found = events(database, run_id)
    lines = RunDir(settings.run_folder(run_id)).journal.read_bytes().count(b"\n")
    told = [event for event in found if event.kind != "state"]
    assert len(told) == lines, f"{len(told)} events of {lines} lines"
    keys = [(event.attempt, event.seq) for event in told if event.kind != "bad_line"]
    assert keys == sorted(set(keys))
    return [event.number for event in found] == list(range(1, len(found) + 1))


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found
