"""A queue of files for Celery, for the embedded default: kombu's filesystem transport, made safe.

kombu publishes by writing into the file that a reader may already be reading: some messages are destroyed,
and an empty file ends the worker. Here a message is written under a hidden name and renamed into place, taken
by renaming it to a name of the taker's own, and set aside as `.bad.*` where it cannot be read.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

SUFFIX = "msg"


class Channel(filesystem.Channel):
    """One message, one file: `<time>_<random>.<queue>.msg`, so that names sort by age.

    A message goes to the queue that its routing key names: kombu's table of exchanges is one more file to be torn,
    or to be forgotten by who wiped the folder.
    """

    supports_fanout = False

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        return [routing_key]

    def _queue_bind(self, *_: Any) -> None:
        """No table, nothing to bind."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may have wiped the queue
        name = f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.{SUFFIX}"
        temporary = folder / f".{name}.tmp"
        with open(temporary, "xb", opener=_private) as file:
            file.write(dumps(payload).encode())
        temporary.rename(folder / name)

    def _get(self, queue: str, timeout: Any = None) -> Any:
        folder = Path(self.data_folder_in)
        for name in self._names(queue):
            taken = folder / f".taken.{os.getpid()}.{name}"
            try:
                (folder / name).rename(taken)
            except FileNotFoundError:
                continue  # another process got there first
            try:
                payload = loads(taken.read_bytes().decode())
                payload["properties"]["delivery_info"]  # what kombu is about to look up
            except (ValueError, KeyError, TypeError, RecursionError):
                taken.rename(folder / f".bad.{name}")
                continue
            taken.unlink()
            return payload
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._names(queue))

    def _purge(self, queue: str) -> int:
        names = self._names(queue)
        for name in names:
            (Path(self.data_folder_in) / name).unlink(missing_ok=True)
        return len(names)

    def _names(self, queue: str) -> list[str]:
        ending = f".{queue}.{SUFFIX}"
        try:
            names = [entry.name for entry in os.scandir(self.data_folder_in)]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name.endswith(ending) and not name.startswith("."))


class Transport(filesystem.Transport):
    Channel = Channel
    driver_name = "safefs"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def register() -> None:
    """Make `safefs://` known to kombu."""
    TRANSPORT_ALIASES["safefs"] = "app.broker:Transport"
