"""Watching runs from a terminal: one bar a run, with its loss; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlmodel import col, select

from app.cli.common import console, note
from app.db import Database
from app.models import Run
from app.runs import states
from app.runs.queries import work_of

SECONDS = 0.5


def watch(database: Database, run_ids: Sequence[int], alive: Callable[[], bool] = lambda: True) -> bool:
    """Show the runs until all have ended. True if all finished. `alive`: give up where it says False."""
    bars = _progress()
    tasks: dict[int, int] = {}
    said: dict[int, str] = {}
    try:
        with bars:
            while True:
                runs = load(database, run_ids)
                for run in runs:
                    assert run.id is not None
                    if run.id not in tasks:
                        tasks[run.id] = bars.add_task(run.name, total=None, detail="")
                    work = work_of(run)
                    bars.update(
                        tasks[run.id],  # type: ignore[arg-type]
                        total=work.total,
                        completed=work.done,
                        detail=describe(run),
                    )
                    if bars.disable and said.get(run.id) != run.state:
                        note(f"{run.name}: {run.state}")
                        said[run.id] = run.state
                if all(run.state in states.ENDED for run in runs):
                    return bool(runs) and all(run.state == states.FINISHED for run in runs)
                if not alive():
                    return False
                time.sleep(SECONDS)
    except KeyboardInterrupt:
        note("The runs go on; `preflab runs list` shows them.")
        raise


def load(database: Database, run_ids: Sequence[int]) -> list[Run]:
    with database.read() as session:
        return list(session.exec(select(Run).where(col(Run.id).in_(run_ids)).order_by(col(Run.id))))


def describe(run: Run) -> str:
    """The state, or what it is doing and its losses."""
    if run.state != states.RUNNING:
        return run.state
    losses = [
        f"{title} {value:.3f}"
        for key, title in (("loss", "loss"), ("eval_loss", "eval"))
        if isinstance(value := run.summary.get(key, {}).get("last"), (int, float))
    ]
    return "  ".join(losses) or run.phase or run.state


def _progress() -> Progress:
    shown = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=shown,
        disable=not shown.is_terminal,
    )
