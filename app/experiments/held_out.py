"""What an experiment holds out of all training: checked at its launch, and found for each of its runs."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from sqlmodel import Session

from app.experiments.spec import HeldOutSpec
from app.models import Experiment
from app.runs.checks import check_dataset
from app.runs.inputs import resolve
from app.runs.place import Place
from app.settings import Settings
from training.errors import TrainingError
from training.references import parse_reference
from training.rundir import HeldOut, ResolvedInput

log = logging.getLogger(__name__)


def check_held_out(session: Session, settings: Settings, spec: HeldOutSpec) -> dict[str, str]:
    """What is wrong, by field as in the file: the data set is not there, or holds something else than prompts."""
    place = Place(session, settings, None, {})
    try:
        check_dataset(place, parse_reference(spec.dataset), "respond")
    except TrainingError as error:
        return {"held_out.dataset": f"{error.failure.message} {error.failure.hint}".strip()}
    return {}


def held_out_of(session: Session, settings: Settings, experiment: Experiment) -> HeldOut | None:
    """What a run of the experiment is told of it, None where it holds nothing out."""
    content = experiment.spec.get("held_out")
    if content is None:
        return None
    spec = HeldOutSpec.model_validate(content)
    return HeldOut(**spec.model_dump(), path=str(_file(settings, experiment)))


def held_out_input(session: Session, settings: Settings, held_out: HeldOut) -> ResolvedInput:
    """Where the trainer finds the data set that they are drawn from; nowhere, once it is gone and they were drawn.

    Raises LookupError with a sentence.
    """
    try:
        return resolve(session, settings, parse_reference(held_out.dataset), None)
    except LookupError:
        if not Path(held_out.path).exists():
            raise
        return ResolvedInput(reference=held_out.dataset)


def set_aside_anothers(settings: Settings, experiment: Experiment) -> None:
    """Rename what an experiment that is only now launched cannot have drawn: a new database counts from 1 again."""
    file = _file(settings, experiment)
    if file.exists():
        aside = file.with_name(f"{file.name}.before-{time.time_ns()}")
        file.rename(aside)
        log.warning("Experiment %s: the held-out prompts of another now lie at %s.", experiment.id, aside)


def _file(settings: Settings, experiment: Experiment) -> Path:
    assert experiment.id is not None
    return settings.experiment_folder(experiment.id) / "held_out.jsonl"
