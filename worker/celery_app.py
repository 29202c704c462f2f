"""The worker's Celery: one pool process a device, which takes runs from the rows until none is queued."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery, signals

from app.doorbell import make_celery
from app.settings import Settings
from worker.devices import Device
from worker.slots import WorkerName
from worker.tasks import Leaving, Workplace, make_task

PR_SET_PDEATHSIG = 1
log = logging.getLogger(__name__)


def make_worker_app(
    settings: Settings, name: WorkerName, devices: Sequence[Device], leaving: Leaving, command: Sequence[str]
) -> Celery:
    """A Celery app whose only task works off the queue."""
    celery = make_celery(settings)
    celery.conf.update(
        worker_enable_remote_control=False,  # stopping a run is a wish on its row
        worker_redirect_stdouts=False,
        worker_pool_restarts=False,
        worker_lost_wait=1.0,  # seconds until a pool process that was killed is replaced for good
    )
    workplace = Workplace(settings, name, devices, leaving, command)
    make_task(celery, workplace)
    main = os.getpid()

    def begin_process(**_: Any) -> None:
        end_with(main)
        workplace.open()

    def leave(**_: Any) -> None:
        log.info("Leaving: runs are asked to save, and go back to the queue.")
        leaving.set()

    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)  # "received" and "succeeded" say nothing
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    # Celery keeps weak references to receivers unless told otherwise.
    signals.setup_logging.connect(lambda **_: None, weak=False)  # it is set up already
    signals.worker_process_init.connect(begin_process, weak=False)
    signals.worker_shutting_down.connect(leave, weak=False)
    return celery


def end_with(parent: int) -> None:
    """Let this pool process die with the worker's main process, and so its trainer with it.

    Celery asks the kernel for that too, but the kernel means the thread that forked: a process that was forked to
    replace a dead one would then be killed when Celery ends that thread, in the middle of a clean shutdown.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
