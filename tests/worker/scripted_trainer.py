"""A trainer that does what a test tells it: `scripted_trainer.py SCRIPT RUN_DIR --parent PID`.

SCRIPT is Python; `run`, `run_dir`, `journal`, `checkpoint(step)` and `stop` (an event, set by SIGTERM) are there. The
process keeps the real trainer's promises: it dies with its parent, holds the run's lock, and ends with SystemExit.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from training.errors import Exit, Failure
from training.journal import Journal
from training.rundir import RunDir, write_json

script, root, _, parent = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit(Exit.PARENT_GONE)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
run_dir = RunDir(Path(root))


def checkpoint(step: int) -> None:
    """A whole checkpoint, as far as a worker looks."""
    folder = run_dir.checkpoints / f"step-{step:06d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"full": True, "files": {}}))


def fail(exit: Exit, message: str) -> None:
    write_json(run_dir.error, Failure(code=exit.name.lower(), message=message).model_dump())
    sys.exit(exit)


with run_dir.locked(5):
    run = run_dir.read_config()
    journal = Journal(run_dir.journal, run.attempt)
    names = {"run": run, "run_dir": run_dir, "journal": journal, "checkpoint": checkpoint, "stop": stop, "fail": fail}
    exec(script, {**names, "Exit": Exit, "os": os, "sys": sys, "time": time, "subprocess": subprocess})
