"""The device: which one, in what precision, how much memory it has, and how busy it is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from training.batches import MicroBatch

BF16_PAYS_FROM = 500_000
"""Parameters from which bf16 is faster on a CPU that multiplies in it; below, the casts cost more than they save.
On two cores with AVX512-BF16: 0.8 times the speed of fp32 at 0.04 million, 1.6 at 0.7, 2.3 at 5.5
(benchmarks/sft_step.py)."""


@dataclass(frozen=True)
class Device:
    """Where a run computes. `half`: the computation is in bf16 (the trained weights never are)."""

    torch: torch.device
    half: bool

    @property
    def is_gpu(self) -> bool:
        return self.torch.type == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self.torch.type, torch.bfloat16) if self.half else contextlib.nullcontext()

    def describe(self) -> str:
        precision = "bf16 with fp32 master weights" if self.half else "fp32"
        if self.is_gpu:
            return f"{torch.cuda.get_device_name(self.torch)}, {precision}"
        threads = torch.get_num_threads()
        return f"CPU with {threads} {'thread' if threads == 1 else 'threads'}, {precision}"

    def memory_used(self) -> int:
        """Bytes: the GPU's highest allocation so far, or this process's resident memory."""
        if self.is_gpu:
            return torch.cuda.max_memory_allocated(self.torch)
        return int(psutil.Process().memory_info().rss)

    def memory_free(self) -> int:
        """Bytes that a run may still take."""
        if self.is_gpu:
            return torch.cuda.mem_get_info(self.torch)[0]
        return min(int(psutil.virtual_memory().available), _container_memory_left())


def choose_device(precision: Literal["auto", "bf16", "fp32"], parameters: int) -> Device:
    """The first GPU, else the CPU; bf16 where asked for, or where it is faster for so many parameters."""
    if torch.cuda.is_available():
        half = precision == "bf16" or (precision == "auto" and torch.cuda.is_bf16_supported(including_emulation=False))
        return Device(torch.device("cuda", 0), half)
    pays = cpu_multiplies_bf16() and parameters >= BF16_PAYS_FROM
    return Device(torch.device("cpu"), precision == "bf16" or (precision == "auto" and pays))


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has bf16 matrix instructions (AVX512-BF16 or AMX), not only an emulation."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 2)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def _container_memory_left() -> int:
    """Bytes below the limit of this process's control group, or a huge number where there is none."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**62


def fitting_micro_batch(
    device: Device, layers: int, hidden: int, intermediate: int, parameters: int, trained: int, checkpointing: bool
) -> MicroBatch:
    """Tokens that go through the model at once: what the free memory takes, and no more than helps.

    Kept for the backward pass, a layer holds about 14 vectors of the hidden size and 5 of the intermediate size a
    token, 4 bytes each; with gradient checkpointing one vector, and one layer's work at a time. Still to come
    are the gradient and AdamW's two means of what is trained, and the weights' bf16 copies. A GPU is full with about 32,000 tokens; a CPU gains nothing from
    more than its caches hold.
    """
    layer = (14 * hidden + 5 * intermediate) * 4
    token = layers * hidden * 4 + layer if checkpointing else layers * layer
    free = 0.8 * device.memory_free() - 12 * trained - 2 * parameters
    most = 32_768 if device.is_gpu else 4_096
    return MicroBatch(tokens=int(max(256, min(most, free // token))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, on a GPU or in this process."""
    words = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in words


class Utilisation:
    """How busy the device was since last asked, from 0 to 1."""

    def __init__(self, device: Device) -> None:
        self._gpu = _NvidiaGpu(device.torch) if device.is_gpu else None
        self._wall, self._busy = time.monotonic(), time.process_time()

    def read(self) -> float | None:
        """The GPU's share of time with a kernel running, or the share of this process's threads that worked."""
        if self._gpu is not None:
            return self._gpu.busy()
        wall, busy = time.monotonic(), time.process_time()
        passed = (wall - self._wall) * min(torch.get_num_threads(), os.cpu_count() or 1)
        share = (busy - self._busy) / passed if passed > 0 else 0.0
        self._wall, self._busy = wall, busy
        return min(1.0, share)


class _Rates(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _NvidiaGpu:
    """Asks NVML, which comes with the driver; says None where it is missing."""

    def __init__(self, device: torch.device) -> None:
        self._library: ctypes.CDLL | None = None
        self._handle = ctypes.c_void_p()
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL("libnvidia-ml.so.1")
            name = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
            ready = library.nvmlInit_v2() == 0
            if ready and library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(self._handle)) == 0:
                self._library = library

    def busy(self) -> float | None:
        rates = _Rates()
        if self._library is None or self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(rates)):
            return None
        return float(rates.gpu) / 100
