"""Writing files so that they survive a power cut, and say in plain words when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from training.errors import DiskFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn "no space left" into DiskFull."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_full_disk(error):
            raise
        raise DiskFull(
            f"The disk is full: {what} could not be written.",
            "Free some space, then resume: the run goes on from its last checkpoint.",
        ) from error


def is_full_disk(error: BaseException) -> bool:
    """Whether it says that there is no space left; the safetensors library does so in words only."""
    number = getattr(error, "errno", None)
    if number is None and (told := re.search(r"os error (\d+)", str(error))):
        number = int(told[1])
    return number in FULL


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file and sync it."""
    save_file({name: each.contiguous() for name, each in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o600)
    sync_file(path)


def synced(path: Path, content: bytes) -> None:
    """Write a file that nobody reads yet, and sync it."""
    path.write_bytes(content)
    sync_file(path)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
