"""Before a trainer starts: what it is told, and a run directory that is this run's own."""

from __future__ import annotations

import logging
import shutil
import time

from app.db import Database
from app.models import Experiment, Run
from app.runs.inputs import resolve_inputs
from app.settings import Settings
from training.config import InvalidConfig, parse_config
from training.errors import Failure
from training.rundir import RunDir, RunFile

log = logging.getLogger(__name__)


class CannotStart(Exception):
    """The run's config or inputs are not usable any more."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.failure = Failure(code="input", message=message, hint=hint)


def run_file(database: Database, settings: Settings, run_id: int, attempt: int) -> RunFile:
    """All that the trainer is told, its inputs found. Raises CannotStart, and SQLAlchemy's errors."""
    with database.read() as session:
        run = session.get_one(Run, run_id)
        experiment = session.get_one(Experiment, run.experiment_id)
        try:
            config = parse_config(run.config)
            inputs = resolve_inputs(session, settings, run, config)
        except InvalidConfig as error:
            hint = "It was launched by another version: clone it and change that."
            raise CannotStart(f"The config is not valid any more: {error}.", hint) from None
        except LookupError as error:
            raise CannotStart(str(error), "Launch it again with inputs that exist.") from None
        return RunFile(
            run_id=run_id,
            name=run.name,
            experiment=experiment.name,
            stage=run.stage,
            attempt=attempt,
            launched_at=run.created_at,
            config=config.model_dump(mode="json"),
            inputs=inputs,
            shared=str(settings.shared_folder),
        )


def set_aside_anothers(run_dir: RunDir, content: RunFile, wait_seconds: float) -> None:
    """Rename a directory that another run made, as when a new database on an old home counts its runs from 1 again.

    Raises Locked where somebody still writes it.
    """
    if not run_dir.journal.exists() or _is_of(run_dir, content):
        return
    with run_dir.locked(wait_seconds):
        aside = run_dir.root.with_name(f"{run_dir.root.name}.before-{time.time_ns()}")
        run_dir.root.rename(aside)
    log.warning("Run %s: its directory was another run's, which now lies at %s.", content.run_id, aside)


def _is_of(run_dir: RunDir, content: RunFile) -> bool:
    try:
        found = run_dir.read_config()
    except (OSError, ValueError):
        return False
    return (found.run_id, found.launched_at) == (content.run_id, content.launched_at)


def remove_what_was_made(run_dir: RunDir) -> None:
    """For a retry from nothing. The journal stays: it is the run's history."""
    for folder in (run_dir.checkpoints, run_dir.model, run_dir.outputs, run_dir.cache):
        shutil.rmtree(folder, ignore_errors=True)
    run_dir.commits.unlink(missing_ok=True)
