"""What the doorbell sets off: take the run that is next, work on it to its end, and so on until none is queued."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from celery import Celery

from app.db import UNREACHABLE, Database
from app.doorbell import TASK, Doorbell
from app.models import Run
from app.runs import lease
from app.settings import Settings
from training.errors import Failure
from worker import trainer
from worker.devices import Device
from worker.launcher import Attempt
from worker.processes import process_id
from worker.slots import WorkerName, free_slot

log = logging.getLogger(__name__)


class Leaving:
    """One byte of memory that the worker shares with the pool processes that it forks: "finish, we leave"."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    def __call__(self) -> bool:
        return self._byte[0] == 1


class Workplace:
    """What one pool process works with. `open` is called after the fork: nothing in it may cross one."""

    def __init__(
        self,
        settings: Settings,
        name: WorkerName,
        devices: Sequence[Device],
        leaving: Leaving,
        command: Sequence[str] = trainer.COMMAND,
    ) -> None:
        self.settings, self.name, self.devices, self.leaving, self.command = settings, name, devices, leaving, command
        self.database: Database

    def open(self) -> None:
        """Connect: with its own engine, and its own doorbell for the runs that it queues."""
        self.database = Database(self.settings.database, ring=Doorbell(self.settings).ring)

    def work(self) -> int:
        """Claim and train until nothing is queued, every device is taken, or the worker leaves. Returns how many."""
        done = 0
        with self._patience(), free_slot(self.name, self.devices) as device:
            while device is not None and not self.leaving() and self.work_once(device):
                done += 1
        return done

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Some service managers send SIGTERM to every process: one that trains lets its trainer save first.

        Set anew for each task, since Celery sets its own after a process has begun.
        """
        before = signal.signal(signal.SIGTERM, lambda *_: self.leaving.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def work_once(self, device: Device) -> bool:
        """Claim one run and see it through. False where nothing was queued, or the database is out of reach."""
        try:
            with self.database.write() as session:
                run = lease.claim_next(session, self._claim(device))
        except UNREACHABLE as error:
            log.warning("The queue cannot be read now: %s", str(error).splitlines()[0])
            return False
        if run is None:
            return False
        try:
            Attempt(self.database, self.settings, run, device, self.leaving, self.command).run()
        except UNREACHABLE:
            return False  # the worker leaves without a database: the reaper gives the run back
        except Exception:
            log.exception("Run %s: its worker made a mistake.", run.id)
            self._bury(run)
        return True

    def _claim(self, device: Device) -> dict[str, Any]:
        process = process_id(os.getpid())
        assert process is not None
        return {"worker": str(self.name), "device": device.key, **process.model_dump()}

    def _bury(self, run: Run) -> None:
        failure = Failure(code="internal", message="Its worker made a mistake.", hint="The worker's log says which.")
        assert run.id is not None
        with self.database.write() as session:
            lease.died(session, run.id, run.attempt, failure, new_checkpoint=False)


def make_task(celery: Celery, workplace: Workplace) -> None:
    @celery.task(name=TASK)
    def work(run_id: int) -> None:
        log.debug("Rung for run %s.", run_id)
        workplace.work()
