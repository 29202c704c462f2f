"""What can be known of a run that answers or judges before it is launched. See app/runs/checks.py."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.models import Experiment, Run
from app.runs import states
from app.runs.inputs import no_endpoint
from app.runs.place import Place, existing
from training.config import InvalidConfig, JudgingConfig, RespondConfig, StageConfig, parse_config
from training.errors import InputError
from training.model_files import CAUSAL, SCORING, read_model_config
from training.references import Reference


def check_asked(place: Place, reference: Reference, name: str, config: StageConfig) -> None:
    """A model that answers, a judge, or a file of instructions. Raises InputError, ModelError."""
    if reference.kind == "api" and reference.name.partition("/")[0] not in place.settings.endpoints:
        raise InputError(no_endpoint(place.settings, reference))
    if reference.kind != "path":
        return
    path = existing(place, reference)
    if name == "instructions":
        if not path.is_file():
            raise InputError(f"{path} is no file.", "Name a text file with {prompt}, {answer_1} and {answer_2} in it.")
    else:
        scores = name == "judge" and isinstance(config, JudgingConfig) and config.way == "reward"
        read_model_config(path, ends=SCORING if scores else CAUSAL)


def taken_names(session: Session, experiment: Experiment | None, config: RespondConfig) -> dict[str, str]:
    """An error where another run's answers to the same prompts are called the same: they would replace each other."""
    if experiment is None or experiment.id is None:
        return {}
    statement = select(Run).where(Run.experiment_id == experiment.id, Run.stage == "respond")
    for run in session.exec(statement.where(col(Run.state).not_in([states.FAILED, states.STOPPED]))):
        try:
            other = parse_config(run.config)
        except InvalidConfig:
            continue
        assert isinstance(other, RespondConfig)
        both = config.answerers().keys() & other.answerers().keys()
        if both and other.prompts == config.prompts:
            name = min(both)
            return {
                "shown_as": f"The answers of “{run.name}” to these prompts are called “{name}” already: choose another name."
            }
    return {}
