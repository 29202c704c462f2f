"""How much memory answers take while they are made, and how much there is for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

from training.device import Device


def memory_for_answers(device: Device, weights: int) -> float:
    """Bytes for what answers keep: of all that the device has, so that every attempt cuts the same batches.

    A CPU's memory is shared with others, and ends a process that takes too much of it.
    """
    if device.is_gpu:
        return float(0.8 * torch.cuda.get_device_properties(device.torch).total_memory - weights)
    return float(0.25 * min(psutil.virtual_memory().total, _container_limit()))


def _container_limit() -> float:
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return float("inf")


def row_bytes(model: Any, prompt: int, answer: int) -> int:
    """Bytes that one answer takes at most: its keys and values with some room (training.decoding.RoomyLayer), what a layer
    holds while it reads the prompt, a mask, and the logits of one place as they are sorted.
    """
    shape = model.config.get_text_config()
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    pairs = getattr(shape, "num_key_value_heads", None) or heads
    size = getattr(shape, "head_dim", None) or hidden // heads
    wide = getattr(shape, "intermediate_size", None) or 4 * hidden
    item = model.dtype.itemsize
    kept = 2 * shape.num_hidden_layers * pairs * size * item * (prompt + answer) * 5 // 4
    seen = prompt * prompt * (1 if model._supports_sdpa else 8 * heads)
    return int(kept + prompt * (14 * hidden + 5 * wide) * item + seen + 16 * shape.vocab_size)
