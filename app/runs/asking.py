"""What can be known of a run that answers or judges before it is launched. See app/runs/checks.py."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.models import Experiment, Prompt, Response, Run
from app.runs import states
from app.runs.inputs import no_endpoint, pin
from app.runs.place import Place, existing
from training.augmenting.writing import read_writing
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
    elif name == "writing":
        read_writing(path)
    else:
        scores = name == "judge" and isinstance(config, JudgingConfig) and config.way == "reward"
        read_model_config(path, ends=SCORING if scores else CAUSAL)


def answering_runs(place: Place) -> list[int]:
    """The experiment's runs that are making answers, or are going to."""
    if place.experiment is None or place.experiment.id is None:
        return []
    alive = col(Run.state).in_([states.WAITING, states.QUEUED, states.RUNNING])
    of_it = (Run.experiment_id == place.experiment.id, Run.stage == "respond")
    return [key for key in place.session.exec(select(Run.id).where(*of_it, alive)) if key is not None]


def has_answers(place: Place) -> bool:
    """Whether the experiment has any answer."""
    if place.experiment is None:
        return False
    statement = select(Response.id).join(Prompt, col(Prompt.id) == col(Response.prompt_key))
    statement = statement.where(Prompt.experiment_id == place.experiment.id).limit(1)
    return place.session.exec(statement).first() is not None


def taken_names(session: Session, experiment: Experiment | None, config: RespondConfig) -> dict[str, str]:
    """An error where other answers to the same prompts, of a run or an import, are called the same: these would
    replace them."""
    if experiment is None or experiment.id is None:
        return {}
    prompts, names = pin(session, config.prompts), config.answerers().keys()  # as a launched run names them
    statement = select(Run).where(Run.experiment_id == experiment.id, Run.stage == "respond")
    for run in session.exec(statement.where(col(Run.state).not_in([states.FAILED, states.STOPPED]))):
        try:
            other = parse_config(run.config)
        except InvalidConfig:
            continue
        assert isinstance(other, RespondConfig)
        both = names & other.answerers().keys()
        if both and other.prompts == prompts:
            return _taken(f"The answers of “{run.name}”", min(both))
    imported = select(Response.model).join(Prompt, col(Prompt.id) == col(Response.prompt_key))
    imported = imported.where(Prompt.experiment_id == experiment.id, Prompt.set_name == prompts)
    imported = imported.where(col(Response.run_id).is_(None), col(Response.model).in_(names))
    found = session.exec(imported.order_by(Response.model).limit(1)).first()
    return {} if found is None else _taken("Imported answers", found)


def _taken(whose: str, name: str) -> dict[str, str]:
    return {"shown_as": f"{whose} to these prompts are called “{name}” already: choose another name."}
