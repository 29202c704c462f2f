"""The run directories of deleted runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from app.runs.folder import usage
from app.settings import Settings


def size(settings: Settings, run_ids: Iterable[int]) -> int:
    """Bytes that these runs' directories hold on this machine."""
    return sum(usage(settings.run_folder(run_id)).bytes for run_id in run_ids)


def remove(settings: Settings, run_ids: Iterable[int]) -> None:
    """Remove the directories, after their rows are gone. Links inside are removed, never followed."""
    for run_id in run_ids:
        shutil.rmtree(settings.run_folder(run_id), ignore_errors=True)
