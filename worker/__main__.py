"""`python -m worker [--devices 0,1] [--parent PID]`: one worker, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from celery import Celery, signals
from celery.platforms import SecurityWarning

from app import migrations
from app.db import Database
from app.doorbell import Doorbell
from app.errors import AppError
from app.settings import Settings, load_settings
from worker.celery_app import make_worker_app
from worker.devices import Device, NoDevice, find
from worker.reaper import Reaper
from worker.slots import WorkerName, free_slots, worker_name
from worker.tasks import Leaving
from worker.trainer import COMMAND
from worker.watch import Watch

USAGE = 2  # exit code: trying again would end the same way
PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None, command: Sequence[str] = COMMAND) -> int:
    """Work until told to end. `command` starts a trainer. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Train queued runs, one a device.")
    parser.add_argument("--devices", help="auto, cpu, or GPU numbers with commas between (PREFLAB_DEVICES)")
    parser.add_argument("--parent", type=int, help="end when this process, which started us, ends")
    given = parser.parse_args(arguments)
    if given.parent is not None and not _tied_to_parent(given.parent):
        return 0
    os.umask(0o077)
    settings = load_settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s worker %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.simplefilter("ignore", SecurityWarning)  # as root: fit for a container, and messages are JSON
    if importlib.util.find_spec("torch") is None:
        return _refuse("A worker needs PyTorch, which is not installed.", "pip install 'preflab[train]'")
    try:
        devices = find(given.devices or settings.devices)
        _check_database(settings)
    except NoDevice as error:
        return _refuse(str(error))
    except AppError as error:
        return _refuse(error.message, error.hint)
    with worker_name(settings) as name:
        return work(settings, name, devices, command)


def work(settings: Settings, name: WorkerName, devices: Sequence[Device], command: Sequence[str]) -> int:
    """Celery's worker, with the watch beside it."""
    leaving = Leaving()
    celery = make_worker_app(settings, name, devices, leaving, command)
    watch = make_watch(settings, name, devices)
    signals.worker_ready.connect(lambda **_: watch.start(), weak=False)
    try:
        return start_celery(celery, name, len(devices), settings.log_level)
    finally:
        leaving.set()
        watch.stop()


def start_celery(celery: Celery, name: WorkerName, processes: int, log_level: str) -> int:
    worker = celery.Worker(
        concurrency=processes,
        pool="prefork",
        hostname=str(name),
        loglevel=log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def make_watch(settings: Settings, name: WorkerName, devices: Sequence[Device]) -> Watch:
    doorbell = Doorbell(settings)
    database = Database(settings.database, ring=doorbell.ring)
    reaper = Reaper(database, settings, doorbell.ring, lambda: free_slots(name, devices))
    return Watch(database, settings, reaper, name, devices)


def _check_database(settings: Settings) -> None:
    settings.create_home()
    database = Database(settings.database)
    try:
        migrations.check(database.engine)
    finally:
        database.dispose()


def _tied_to_parent(parent: int) -> bool:
    """Ask for SIGTERM when the parent dies. False where it is gone already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == parent


def _refuse(message: str, hint: str = "") -> int:
    print(f"preflab worker: {message} {hint}".rstrip(), file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
