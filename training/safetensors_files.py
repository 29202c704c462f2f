"""Safetensors files, judged by their headers alone: no torch, and no weight is read.

The format: 8 bytes of header length (little-endian), a JSON header {name: {dtype, shape, data_offsets}}, the data.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from training.errors import ModelError

MAX_HEADER = 100 << 20  # bytes; the reference implementation's own limit
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
AGAIN = "Copy or download the file again."


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header tells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> list[Tensor]:
    """All tensors of a file. Raises ModelError where it is no whole safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start[:1] == b"\x80" or start[:4] == b"PK\x03\x04":
            raise ModelError(
                f"{path} is a pickle under another name, not safetensors.",
                "Do not load it elsewhere either: a pickle can run any code. Take the model from its source.",
            )
        if len(start) < 8:
            raise ModelError(f"{path} is cut short: it has {size:,} bytes.", AGAIN)
        length = struct.unpack("<Q", start)[0]
        if length > MAX_HEADER:
            raise ModelError(f"{path} is no safetensors file: its header would be {length:,} bytes long.", AGAIN)
        if length > size - 8:
            raise ModelError(f"{path} is cut short: its header alone has {length:,} bytes, the file {size:,}.", AGAIN)
        header = file.read(length)
    try:
        tensors = list(_tensors(orjson.loads(header)))
        _check_places([place for _, place in tensors])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: its header cannot be read ({error}).", AGAIN) from None
    promised = 8 + length + max((end for _, (_, end) in tensors), default=0)
    if promised != size:
        state = "cut short" if size < promised else "damaged"
        raise ModelError(f"{path} is {state}: it has {size:,} bytes of {promised:,}.", AGAIN)
    return [tensor for tensor, _ in tensors]


def _check_places(places: list[tuple[int, int]]) -> None:
    """The data are the tensors' one after another, without holes. Raises ValueError."""
    expected = 0
    for begin, end in sorted(places):
        if begin != expected:
            raise ValueError(f"its tensors {'overlap' if begin < expected else 'leave a hole'} at byte {begin:,}")
        expected = end


def _tensors(header: dict[str, Any]) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Each tensor, with the place of its data. Raises ValueError, KeyError, TypeError or AttributeError."""
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = map(int, entry["data_offsets"])
        tensor = Tensor(name, str(entry["dtype"]), tuple(map(int, entry["shape"])))
        width = WIDTHS.get(tensor.dtype)
        if min(tensor.shape, default=0) < 0 or not 0 <= begin <= end:
            raise ValueError(f"“{name[:60]}” has a negative size")
        if width is not None and end - begin != tensor.size * width:
            raise ValueError(f"“{name[:60]}” does not fill its place")
        yield tensor, (begin, end)
