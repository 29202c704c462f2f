"""Whether the disk has room for a run, before it trains for hours."""

from __future__ import annotations

import shutil

from training.config import TrainingConfig
from training.errors import DiskFull
from training.loading import Loaded
from training.rundir import RunDir

STATES = 3  # fp32 numbers a trained parameter in a checkpoint: the weight and AdamW's two means


def check_room(loaded: Loaded, config: TrainingConfig, run_dir: RunDir) -> None:
    """Raise DiskFull where the checkpoints and the model cannot all fit.

    At most there are `keep_checkpoints` full ones, each with a best one of weights alone, beside them a newer best
    one while the next full one is written, and the model.
    """
    weights = 4 * loaded.trained
    model = loaded.parameters * loaded.source_dtype.itemsize
    need = (config.keep_checkpoints + 1) * (STATES + 1) * weights + model
    free = shutil.disk_usage(run_dir.root).free + _held(run_dir)
    if free < need:
        raise DiskFull(
            f"The run needs {need / 2**30:,.1f} GiB on the disk for checkpoints and the model, "
            f"but {free / 2**30:,.1f} GiB are free.",
            "Free some space, or keep fewer checkpoints.",
            field="keep_checkpoints",
        )


def _held(run_dir: RunDir) -> int:
    """Bytes that an earlier attempt's checkpoints take: they are among the need."""
    return sum(file.stat().st_size for file in run_dir.checkpoints.glob("*/*") if file.is_file())
