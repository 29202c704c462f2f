"""What inputs on this machine hold, looked at before a run is launched: each once, until it changes."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from pathlib import Path

from training.data.formats import check_kind, read_examples, scan
from training.data.lines import data_files
from training.model_files import ModelFacts, check_length, inspect_model

MOST_SCANNED = 16 << 20  # bytes of a file of which every row is checked here; the rest waits for the run's start
FIRST_ROWS = 1000  # of a larger file


def check_model(folder: Path, max_length: int) -> None:
    """Raises ModelError, or InputError where the model cannot read examples so long."""
    check_length(max_length, model_facts(folder).max_positions)


def model_facts(folder: Path) -> ModelFacts:
    """Raises ModelError."""
    try:
        changed = max(file.stat().st_mtime_ns for file in (folder, *folder.iterdir()))
    except OSError:
        changed = 0
    return _inspect(folder, changed)


@lru_cache(maxsize=32)
def _inspect(folder: Path, _changed: int) -> ModelFacts:
    return inspect_model(folder)


def check_data(path: Path) -> None:
    """Check the rows of a file, or of the files of a folder, as far as that takes no time. Raises DataError."""
    left = MOST_SCANNED
    for file in data_files(path):
        try:
            about = file.stat()
        except OSError:
            about = None  # reading it says why
        left -= about.st_size if about else 0
        _check_file(file, left >= 0, about.st_mtime_ns if about else 0, about.st_size if about else 0)


@lru_cache(maxsize=256)
def _check_file(file: Path, whole: bool, _changed: int, _size: int) -> None:
    if whole:
        check_kind(file.name, scan(file).kind)
    else:
        deque(read_examples(file, FIRST_ROWS), maxlen=0)
