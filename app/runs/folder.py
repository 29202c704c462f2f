"""Looking into a run's directory: what lies there, and one file of it. No link is followed, and nothing outside read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from app.errors import NotFound

MOST_FILES = 2000
MOST_JSON = 4 << 20  # bytes of a JSON file that a page shows
HIDDEN = frozenset({"cache", "lock", "process.json"})  # of no use to a reader


@dataclass(frozen=True)
class Entry:
    """A file: its path within the directory, bytes, and time of change."""

    path: str
    bytes: int
    changed: float


@dataclass(frozen=True)
class Usage:
    """What a run's directory holds."""

    bytes: int
    checkpoints: int


def entries(root: Path) -> list[Entry]:
    """All plain files of a run, at most MOST_FILES, by path. Empty where the directory is not on this machine."""
    found: list[Entry] = []
    for path, about in _files(root):
        name = path.relative_to(root).as_posix()
        if any(part.startswith(".") or part in HIDDEN for part in name.split("/")):
            continue
        if len(found) >= MOST_FILES:
            break
        found.append(Entry(name, about.st_size, about.st_mtime))
    return sorted(found, key=lambda entry: (entry.path.count("/"), entry.path))


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All plain files below `root`. What goes away meanwhile, as pruned checkpoints do, is left out."""
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = Path(folder, name)
            try:
                about = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(about.st_mode):
                yield path, about


def usage(root: Path) -> Usage:
    """Bytes of all files, and how many checkpoints there are."""
    return Usage(sum(about.st_size for _, about in _files(root)), len(list(root.glob("checkpoints/step-*"))))


def open_file(root: Path, path: str) -> BinaryIO:
    """A plain file within `root`, opened part by part without following a link. Raises NotFound."""
    parts = path.split("/")
    if not path or "\0" in path or any(part in {"", ".", ".."} for part in parts) or HIDDEN & set(parts):
        raise NotFound("There is no such file in this run's directory.")
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for index, part in enumerate(parts):
            kind = os.O_NONBLOCK if index == len(parts) - 1 else os.O_DIRECTORY
            try:
                inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = inner
    except OSError:
        raise NotFound("There is no such file in this run's directory.", "The list shows what there is.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotFound("This is no plain file.")
    return os.fdopen(descriptor, "rb")


def read_json(root: Path, path: str) -> dict[str, Any] | None:
    """A JSON object of the directory, or None where there is none, or none to be read."""
    try:
        with open_file(root, path) as file:
            content = orjson.loads(file.read(MOST_JSON))
    except (NotFound, ValueError):
        return None
    return content if isinstance(content, dict) else None
