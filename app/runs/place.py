"""Where the references of a run that is not launched yet are looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from app.models import Experiment
from app.runs.inputs import allowed_path
from app.settings import Settings
from training.errors import InputError
from training.references import Reference


@dataclass(frozen=True)
class Place:
    """Where references are looked up. `planned`: the stages of runs that are launched together with this one."""

    session: Session
    settings: Settings
    experiment: Experiment | None
    planned: Mapping[str, str]


def existing(place: Place, reference: Reference) -> Path:
    """The file or folder that a `path:` reference names. Raises InputError."""
    path = allowed_path(place.settings, reference.name)
    if path is None:
        roots = ", ".join(map(str, place.settings.path_roots)) or "none"
        raise InputError(
            f"This path is outside the folders that may be read ({roots}).", "PREFLAB_ALLOWED_PATHS names them."
        )
    try:
        missing = not path.exists()
    except OSError as error:
        raise InputError(
            f"{_shortened(path)} cannot be read: {error.strerror}.", "Check the path, and who may read it."
        ) from None
    if missing:
        raise InputError(f"There is no file or folder {_shortened(path)}.")
    return path


def _shortened(path: Path, most: int = 300) -> str:
    text = str(path)
    return text if len(text) <= most else f"{text[:most]}…"
