"""`preflab up`, `preflab worker`, `preflab demo`."""

from __future__ import annotations

import importlib.util
import os
import sys

import typer

from app.errors import Unavailable
from app.system.doctor import TRAIN


def add_to(cli: typer.Typer) -> None:
    cli.command("worker")(worker)


def worker() -> None:
    """One more worker: it takes runs off the queue and trains them on this machine's devices."""
    if importlib.util.find_spec("torch") is None:
        raise Unavailable("torch is not installed: this machine cannot train.", TRAIN)
    os.execv(sys.executable, [sys.executable, "-m", "worker"])
