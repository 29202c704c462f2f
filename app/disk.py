"""The floor under the free disk space."""

from __future__ import annotations

import shutil

from app.errors import Unavailable
from app.settings import Settings


def free_bytes(settings: Settings) -> int:
    """What the home's disk has left. The home need not exist yet."""
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    return shutil.disk_usage(place).free


def check_space(settings: Settings, needed: int = 0) -> None:
    """Raises Unavailable where so many bytes more would leave too little room."""
    free = free_bytes(settings)
    if free - needed < settings.min_free_disk_bytes:
        raise Unavailable(
            f"The disk of {settings.home} has {free / 1e9:.1f} GB left, which is too little for this.",
            "Free some space: old runs and data sets can be deleted. PREFLAB_MIN_FREE_DISK_BYTES is the floor.",
        )
