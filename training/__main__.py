"""`python -m training RUN_DIR [--parent PID]`: one run, in a process that its supervisor can trust.

The process's own concerns stand here: the lock, the death of the parent, signals, exit codes. What is trained is the
stage's concern (training/stages/). Why it failed stands in error.json and in the exit code (training/errors.py).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import os
import platform
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType

from training.config import InvalidConfig, StageConfig, parse_config
from training.errors import DiskFull, Exit, Failure, InputError, Locked, OutOfMemory, Stopped, TrainingError
from training.journal import Journal
from training.rundir import RunDir, RunFile, write_json

PR_SET_PDEATHSIG = 1
PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "safetensors", "peft", "numpy", "flash-attn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train one run.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--parent", type=int, help="process id that this process must not outlive")
    options = parser.parse_args(arguments)
    if not _tied_to_parent(options.parent):
        return Exit.PARENT_GONE
    os.umask(0o077)
    run_dir = RunDir(options.run_dir.absolute())
    stop = StopWish()
    signal.signal(signal.SIGTERM, stop.signalled)
    signal.signal(signal.SIGINT, stop.signalled)
    try:
        with run_dir.locked():
            return _locked_run(run_dir, stop)
    except Locked as error:
        print(f"python -m training: {error}", file=sys.stderr)
        return Exit.LOCKED


class StopWish:
    """Whether somebody asked this process to stop.

    A stage asks for it when it has prepared its data, and then again and again, and saves before it stops. Before that
    there is nothing to save, and libraries may download or read for hours: there the signal itself ends the process.
    Every file is written so that it may be killed at any moment, and an unfinished download is taken up again.
    """

    def __init__(self) -> None:
        self._wanted = self._asked_for = False

    def __call__(self) -> bool:
        self._asked_for = True
        return self._wanted

    def signalled(self, number: int, frame: FrameType | None) -> None:
        self._wanted = True
        if not self._asked_for:
            raise SystemExit(Exit.STOPPED)


def _tied_to_parent(parent: int | None) -> bool:
    """Ask the kernel to kill this process when its parent dies. False where the parent is gone already."""
    if parent is None:
        return True
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent  # it may have died before the kernel knew


def _locked_run(run_dir: RunDir, stop: StopWish) -> int:
    run_dir.error.unlink(missing_ok=True)
    try:
        _run(run_dir, stop)
    except Stopped:
        return Exit.STOPPED
    except TrainingError as error:
        return _fail(run_dir, error)
    except Exception as error:  # noqa: BLE001 (the last resort: told in trainer.log, and tried again)
        known = _known(error)
        if known is not None:
            return _fail(run_dir, known)
        traceback.print_exc()
        return 1
    return Exit.FINISHED


def _run(run_dir: RunDir, stop: StopWish) -> None:
    """Read the config, prepare the libraries, and hand over to the stage."""
    run = _read_config(run_dir)
    config = _parse(run)
    _prepare_libraries()
    write_json(run_dir.env, environment())

    journal = Journal(run_dir.journal, run.attempt)
    try:
        stage = importlib.import_module(f"training.stages.{config.stage}")
        stage.run(config, run, run_dir, journal, stop)
        journal.sync()
    finally:
        journal.close()


def _read_config(run_dir: RunDir) -> RunFile:
    try:
        return run_dir.read_config()
    except FileNotFoundError:
        raise InputError(f"There is no config.json in {run_dir.root}.", "Name a run directory.") from None
    except ValueError as error:
        raise InputError(f"config.json cannot be read: {str(error).splitlines()[0]}.", "Launch the run anew.") from None


def _parse(run: RunFile) -> StageConfig:
    try:
        return parse_config(dict(run.config))
    except InvalidConfig as error:
        field = next(iter(error.fields))
        raise InputError(f"{field}: {error.fields[field]}", "Clone the run and change it.", field=field) from None


def _prepare_libraries() -> None:
    """Quiet and private libraries, and as many threads as were granted."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    # oneDNN keeps a kernel, with its memory, for each of the last 1,024 shapes; packed batches are all of different
    # ones, and a small model in bf16 grew by 20 MB a step.
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "64")
    threads = os.environ.get("PREFLAB_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        os.environ["OMP_NUM_THREADS"] = threads
    import torch
    import transformers

    if threads.isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def environment() -> dict[str, object]:
    """What the run ran on, for env.json: versions, host, devices. No environment variables: they hold secrets."""
    import psutil
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "preflab": _version("preflab"),
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": psutil.virtual_memory().total,
        "cuda": torch.version.cuda,
        "gpus": [
            {"name": torch.cuda.get_device_name(each), "memory": torch.cuda.get_device_properties(each).total_memory}
            for each in range(torch.cuda.device_count())
        ],
    }


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor()


def _known(error: Exception) -> TrainingError | None:
    """The failure of ours that an exception of a library means, if any."""
    from training.device import is_out_of_memory
    from training.files import is_full_disk

    if is_out_of_memory(error):
        return OutOfMemory(
            "Memory ran out.",
            "Shorten the longest example, turn gradient checkpointing on, use LoRA, or take a smaller model.",
        )
    if is_full_disk(error):
        return DiskFull("The disk is full.", "Free some space, then resume: the run goes on from its last checkpoint.")
    if isinstance(error, PermissionError):
        return InputError(f"No permission: {error.filename}.", "Give the user that runs Preflab access to it.")
    return None


def _fail(run_dir: RunDir, error: TrainingError) -> int:
    """Say why, in error.json and on stderr."""
    failure: Failure = error.failure
    with contextlib.suppress(OSError):  # a full disk: the exit code still says it
        write_json(run_dir.error, failure.model_dump())
    with contextlib.suppress(OSError):  # stderr is a file too
        print(f"{failure.code}: {failure.message} {failure.hint}", file=sys.stderr, flush=True)
    return error.exit


if __name__ == "__main__":
    sys.exit(main())
