"""What a figure was measured on: versions and hardware, in one line that goes with it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path


def about(*packages: str) -> str:
    """For example `2026-01-01, Python 3.11.7, torch 2.13.0; AMD EPYC, 2 cores, 24 GB`."""
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{today}, Python {platform.python_version()}, {versions}; {_cpu()}, {_cores()} cores, {_memory()}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{kilobytes / 1e6:.0f} GB"
