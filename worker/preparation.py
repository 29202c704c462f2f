"""Before a trainer starts: what it is told, and a run directory that is this run's own."""

from __future__ import annotations

import logging
import shutil
import time

import orjson
from sqlmodel import Session

from app.db import Database
from app.errors import AppError
from app.experiments.held_out import held_out_input, held_out_of
from app.models import Experiment, Run
from app.runs.inputs import resolve_inputs
from app.settings import Settings
from app.winrates import exports, sets
from training.config import InvalidConfig, JudgeConfig, RespondConfig, StageConfig, parse_config
from training.errors import Failure
from training.rundir import RunDir, RunFile, write_atomically

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
            held_out = held_out_of(session, settings, experiment)
            if held_out is not None:
                inputs[held_out.dataset] = held_out_input(session, settings, held_out)
        except InvalidConfig as error:
            hint = "It was launched by another version: clone it and change that."
            raise CannotStart(f"The config is not valid any more: {error}.", hint) from None
        except LookupError as error:
            raise CannotStart(str(error), "Launch it again with inputs that exist.") from None
        asked = asked_set(session, experiment, config)
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
            held_out=held_out,
            embedder=settings.embedder,
            prompt_set=asked,
            responses=str(RunDir(settings.run_folder(run_id)).given_responses) if run.stage == "judge" else None,
        )


def asked_set(session: Session, experiment: Experiment, config: StageConfig) -> str | None:
    """The prompt set that a run answers, or whose answers it judges. Raises CannotStart."""
    if isinstance(config, RespondConfig):
        return config.prompts
    if not isinstance(config, JudgeConfig):
        return None
    try:
        return sets.choose_set(session, experiment, exports.set_of_runs(session, experiment, config))
    except AppError as error:
        raise CannotStart(error.message, error.hint) from None


def give_answers(database: Database, content: RunFile, run_dir: RunDir) -> None:
    """Write the answers that a judge run is to judge. They stay as they are while it goes on. Raises CannotStart."""
    config = parse_config(content.config)
    if not isinstance(config, JudgeConfig) or run_dir.given_responses.exists():
        return
    with database.read() as session:
        run = session.get_one(Run, content.run_id)
        owner = session.get_one(Experiment, run.experiment_id)
        models = exports.models_of_runs(session, owner, config)
        rows = list(exports.responses(session, owner, content.prompt_set or "", models))
    if not rows:
        raise CannotStart("There are no answers to judge.", "Let a respond run answer first, or import answers.")
    write_atomically(run_dir.given_responses, b"".join(orjson.dumps(row) + b"\n" for row in rows))


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
    for file in (run_dir.commits, run_dir.work, run_dir.given_responses):
        file.unlink(missing_ok=True)
