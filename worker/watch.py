"""What a worker's main process does beside Celery: sweep, and say on its row that it is there."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, delete, select

from app.db import Database
from app.models import Run, Worker
from app.runs import states
from app.settings import Settings
from worker.devices import Device, describe
from worker.reaper import Reaper, State
from worker.slots import WorkerName

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0


class Watch:
    """A thread that sweeps every second, and shows the worker on the page at each beat."""

    def __init__(
        self, database: Database, settings: Settings, reaper: Reaper, name: WorkerName, devices: Sequence[Device]
    ) -> None:
        self.database, self.settings, self.name, self.devices = database, settings, name, devices
        self._reaper, self._state = reaper, State()
        self._started = time.time()
        self._next_show = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; nothing, where it has begun (Celery is ready again after each lost connection)."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, and take the worker off the page."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(10)
        try:
            with self.database.write() as session:
                session.execute(delete(Worker).where(col(Worker.name) == str(self.name)))
        except SQLAlchemyError as error:
            log.warning("The worker stays on the page: %s", _first(error))
        self.database.dispose()

    def turn(self, now: float) -> None:
        """One round, with a monotonic clock's time."""
        self._reaper.sweep(self._state, now)
        if now >= self._next_show:
            self._next_show = now + self.settings.beat_seconds
            self.show()

    def show(self) -> None:
        """Write the worker's row: its devices, how busy they are, and which run each has."""
        devices = describe(self.devices)
        with self.database.write() as session:
            running = select(Run.id, Run.claim).where(Run.state == states.RUNNING)
            claims = [(run_id, claim) for run_id, claim in session.exec(running) if claim]
            mine = {claim.get("device"): run_id for run_id, claim in claims if claim.get("worker") == str(self.name)}
            for device in devices:
                device["run"] = mine.get(device["key"])
            row = Worker(
                name=str(self.name),
                host=self.name.host,
                pid=os.getpid(),
                started_at=self._started,
                seen_at=time.time(),
                devices=devices,
            )
            session.merge(row)

    def _run(self) -> None:
        while not self._end.wait(min(SWEEP_SECONDS, self.settings.beat_seconds)):
            try:
                self.turn(time.monotonic())
            except SQLAlchemyError as error:
                log.warning("The database cannot be reached: %s", _first(error))
            except Exception:
                log.exception("The watch made a mistake, and goes on.")


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0]
