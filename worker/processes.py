"""Which process is which: a pid alone may name a stranger, so a process is known by its start time and boot too.

Linux's /proc is read directly: psutil's start times shift with the wall clock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

PROC = Path("/proc")


class ProcessId(BaseModel):
    """One process of one boot of one machine. `started`: clock ticks since that boot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    started: int
    boot: str  # the boot's id, and the name space that pids count in

    def alive(self) -> bool:
        """Whether this very process runs. Only asked of a process of this boot (`here`)."""
        return start_time(self.pid) == self.started

    @property
    def here(self) -> bool:
        """Whether this process can be looked up: it belongs to this boot of this machine, and these pids."""
        return self.boot == boot()

    @property
    def provably_dead(self) -> bool:
        return self.here and not self.alive()


@functools.cache
def boot() -> str:
    """This boot's id with the pid name space: containers on one machine share the one, not the other."""
    return f"{(PROC / 'sys/kernel/random/boot_id').read_text().strip()} {(PROC / 'self/ns/pid').readlink()}"


def process_id(pid: int) -> ProcessId | None:
    """The process that has this pid now, or None."""
    started = start_time(pid)
    return None if started is None else ProcessId(pid=pid, started=started, boot=boot())


def start_time(pid: int) -> int | None:
    """Clock ticks from the boot to the process's start; None where it does not run (a zombie does not)."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def started_with(name: str) -> Iterator[tuple[int, str]]:
    """(pid, value) of each process that has this variable in the environment that it began with."""
    wanted = f"{name}=".encode()
    for entry in PROC.iterdir():
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            if entry.name.isdigit():
                for variable in (entry / "environ").read_bytes().split(b"\0"):
                    if variable.startswith(wanted):
                        yield int(entry.name), os.fsdecode(variable[len(wanted) :])


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal a process group, if there still is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on: state, ppid, pgrp, session, ... (man 5 proc)."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
