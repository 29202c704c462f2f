"""What a worker trains on: GPUs as nvidia-smi sees them, else the CPU. One run a device at a time. No torch here."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

QUERY = "index,uuid,name,memory.total,memory.used,utilization.gpu"
MIB = 1 << 20


@dataclass(frozen=True)
class Device:
    """A place for one run. `uuid` is what CUDA_VISIBLE_DEVICES takes; empty for the CPU, which hides all GPUs."""

    key: str  # "gpu-0" or "cpu"
    name: str
    uuid: str = ""


class NoDevice(Exception):
    """A device was asked for that is not there; the message says so to a person."""


def find(wanted: str) -> list[Device]:
    """The devices that the setting names (`auto`, `cpu`, or GPU numbers with commas between). Raises NoDevice."""
    if wanted == "cpu":
        return [CPU]
    gpus = {row["index"]: Device(f"gpu-{row['index']}", row["name"], row["uuid"]) for row in _visible(read_gpus())}
    if wanted == "auto":
        return list(gpus.values()) or [CPU]
    chosen = [part.strip() for part in wanted.split(",") if part.strip()]
    missing = [number for number in chosen if number not in gpus]
    if missing or not chosen:
        there = ", ".join(gpus) if gpus else "none"
        raise NoDevice(f"PREFLAB_DEVICES is “{wanted}”, but the GPUs of this machine are: {there}.")
    return [gpus[number] for number in dict.fromkeys(chosen)]


def read_gpus() -> list[dict[str, str]]:
    """One row a GPU, by the names of QUERY without their units; none where there is no nvidia-smi."""
    try:
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in told.splitlines() if line.strip()]
    return [dict(zip(QUERY.split(","), row, strict=True)) for row in rows if len(row) == len(QUERY.split(","))]


def _visible(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """A worker that was given some GPUs by CUDA_VISIBLE_DEVICES takes no others."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return rows
    allowed = [part.strip() for part in given.split(",") if part.strip()]
    return [row for row in rows if row["index"] in allowed or any(row["uuid"].startswith(part) for part in allowed)]


def describe(devices: Sequence[Device]) -> list[dict[str, Any]]:
    """What the page shows of each device: key, name, memory in bytes, utilisation in [0, 1]."""
    gpus = {row["uuid"]: row for row in read_gpus()} if any(device.uuid for device in devices) else {}
    return [_facts(device, gpus.get(device.uuid)) for device in devices]


def _facts(device: Device, gpu: dict[str, str] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"key": device.key, "name": device.name}
    if device.uuid:
        used, total, busy = (
            _number(gpu, "memory.used"),
            _number(gpu, "memory.total"),
            _number(gpu, "utilization.gpu"),
        )
        return facts | {
            "memory_used": None if used is None else int(used * MIB),
            "memory_total": None if total is None else int(total * MIB),
            "utilisation": None if busy is None else busy / 100,
        }
    memory = psutil.virtual_memory()
    return facts | {
        "memory_used": memory.total - memory.available,
        "memory_total": memory.total,
        "utilisation": psutil.cpu_percent() / 100,
    }


def _number(gpu: dict[str, str] | None, field: str) -> float | None:
    with contextlib.suppress(ValueError):
        return None if gpu is None else float(gpu[field])
    return None  # "[N/A]"


def _cpu_name() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return "CPU"


CPU = Device("cpu", _cpu_name())
