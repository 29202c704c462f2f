"""What inputs on this machine hold, looked at before a run is launched: each once, until it changes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from app.datasets.flaws import Flaws
from training.data.formats import DatasetFacts, check_kind, scan
from training.data.lines import data_files
from training.errors import ModelError
from training.model_files import ModelFacts, check_length, check_same_tokenizer, inspect_model

MOST_SCANNED = 16 << 20  # bytes of a file of which every row is checked here; the rest waits for the run's start
FIRST_ROWS = 1000  # of a larger file


def check_model(folder: Path, max_length: int) -> None:
    """Raises ModelError, or InputError where the model cannot read examples so long."""
    check_length(max_length, model_facts(folder).max_positions)


def model_facts(folder: Path) -> ModelFacts:
    """Raises ModelError."""
    return _inspect(folder, _changed_at(folder))


def _changed_at(folder: Path) -> int:
    try:
        return max(file.stat().st_mtime_ns for file in (folder, *folder.iterdir()))
    except OSError:
        return 0


@lru_cache(maxsize=32)
def _inspect(folder: Path, _changed: int) -> ModelFacts:
    return inspect_model(folder)


def check_tokenizers(model: Path, reference: Path) -> None:
    """Raises ModelError where a reference model's tokenizer gives other ids than the model's own."""
    refusal = _compare(model, reference, _changed_at(model), _changed_at(reference))
    if refusal is not None:
        raise refusal


@lru_cache(maxsize=32)
def _compare(model: Path, reference: Path, _changed: int, _reference_changed: int) -> ModelError | None:
    try:
        check_same_tokenizer(model, reference)
    except ModelError as error:
        return error
    return None


def check_data(path: Path, stage: str) -> dict[str, Flaws]:
    """Check the rows of a file, or of the files of a folder, as far as that takes no time. Raises DataError.

    Returns the flaws of each file that was read whole, by its name.
    """
    left, flaws = MOST_SCANNED, dict[str, Flaws]()
    for file in data_files(path):
        try:
            about = file.stat()
        except OSError:
            about = None  # reading it says why
        left -= about.st_size if about else 0
        facts = _scan(file, left >= 0, about.st_mtime_ns if about else 0, about.st_size if about else 0)
        check_kind(file.name, facts.kind, stage)
        if left >= 0:
            flaws[file.name] = facts.flaws
    return flaws


@lru_cache(maxsize=256)
def _scan(file: Path, whole: bool, _changed: int, _size: int) -> DatasetFacts:
    return scan(file, rows=None if whole else FIRST_ROWS)
