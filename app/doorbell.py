"""The doorbell: Celery carries a run's id and nothing else. Losing, repeating or delaying it costs only time.

The worker takes whichever queued run is next by the rows; the id in the message is for the log.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from celery import Celery

from app import broker
from app.settings import Settings

TASK = "preflab.work"
log = logging.getLogger(__name__)


def make_celery(settings: Settings) -> Celery:
    """A Celery app with the broker that the settings name, and the options that keep runs from being lost or doubled."""
    broker.register()
    celery = Celery("preflab", broker=settings.broker_url or "safefs://localhost", set_as_current=False)
    celery.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # the reaper gives the run on, and counts its attempts
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # training needs no broker
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=5,
        broker_transport_options=_file_options(settings) if settings.embedded_queue else REDIS_OPTIONS,
        task_publish_retry=False,  # the sweeper rings again
    )
    return celery


REDIS_OPTIONS = {
    "visibility_timeout": 3600,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


def _file_options(settings: Settings) -> dict[str, Any]:
    folder = str(settings.queue_folder)
    return {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "polling_interval": 0.2,
    }


class Doorbell:
    """Rings from a thread of its own, so that a broker that hangs or is down never delays an answer."""

    def __init__(self, settings: Settings) -> None:
        self._celery = make_celery(settings)
        self._waiting: queue.Queue[int | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ring(self, run_id: int) -> None:
        """Announce a queued run. Returns at once; a failure is logged, and the sweeper rings again."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="doorbell", daemon=True)
                self._thread.start()
        self._waiting.put(run_id)

    def close(self, timeout: float = 6.0) -> None:
        """Ring what is still waiting, then stop. For short-lived programs such as the CLI."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(timeout)

    def _work(self) -> None:
        while (run_id := self._waiting.get()) is not None:
            try:
                self._celery.send_task(TASK, args=[run_id])
            except Exception as error:  # noqa: BLE001 - whatever a broker throws, the row stands
                log.warning("The queue could not be told of run %s (%s); it will be told again.", run_id, error)
