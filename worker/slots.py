"""Names and places, held by locks that the kernel frees however their holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from worker.devices import Device


@dataclass(frozen=True)
class WorkerName:
    """Which worker this is: `own` differs among the workers of one home on one host."""

    own: str
    host: str
    folder: Path  # of the locks: one a host, since the home may be shared by several

    def __str__(self) -> str:
        return f"{self.own}@{self.host}"


@contextlib.contextmanager
def worker_name(settings: Settings) -> Iterator[WorkerName]:
    """Hold the first free name: worker-1, worker-2, ..."""
    host = socket.gethostname() or "localhost"
    folder = settings.workers_folder / (re.sub(r"[^A-Za-z0-9._-]", "_", host).lstrip(".") or "localhost")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = 1
    while (held := lock_file(folder / f"worker-{number}.lock")) is None:
        number += 1
    try:
        yield WorkerName(f"worker-{number}", host, folder)
    finally:
        os.close(held)


@contextlib.contextmanager
def free_slot(name: WorkerName, devices: Sequence[Device]) -> Iterator[Device | None]:
    """Hold the first device that no other process holds, or None.

    A GPU is held against all workers of this home on this host, the CPU against the worker's own processes.
    """
    for device in devices:
        held = lock_file(_lock_of(name, device))
        if held is not None:
            try:
                yield device
            finally:
                os.close(held)
            return
    yield None


def free_slots(name: WorkerName, devices: Sequence[Device]) -> int:
    """How many of the devices nobody holds at this moment."""
    free = 0
    for device in devices:
        held = lock_file(_lock_of(name, device))
        if held is not None:
            os.close(held)
            free += 1
    return free


def _lock_of(name: WorkerName, device: Device) -> Path:
    return name.folder / (f"{device.key}.lock" if device.uuid else f"{name.own}.{device.key}.lock")


def lock_file(path: Path) -> int | None:
    """A descriptor that holds the file's lock, or None where another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
