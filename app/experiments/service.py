"""Experiments: made by the launch of their first runs."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from app.db import one_at_a_time
from app.disk import check_space
from app.errors import Conflict, Invalid, NotFound
from app.experiments import spec as specs
from app.experiments.held_out import check_held_out, set_aside_anothers
from app.models import Experiment, Run
from app.runs import service as runs
from app.runs.checks import check_inputs
from app.runs.inputs import pin, pinned
from app.settings import Settings
from training.config import JudgeConfig, StageConfig
from training.references import NAME

PLAYGROUND = "playground"  # the experiment of runs that were launched without one


def get(session: Session, experiment_id: int) -> Experiment:
    """Raises NotFound."""
    experiment = session.get(Experiment, experiment_id)
    if experiment is None:
        raise NotFound(f"There is no experiment {experiment_id}.")
    return experiment


def by_name(session: Session, name: str) -> Experiment | None:
    return session.exec(select(Experiment).where(Experiment.name == name)).one_or_none()


def get_or_create(session: Session, name: str) -> Experiment:
    """The experiment of this name, made where it does not exist. Raises Invalid for a bad name."""
    found = by_name(session, name)
    if found is not None:
        return found
    if not NAME.fullmatch(name):
        raise Invalid(
            "An experiment's name here has letters, digits, dots, dashes and underscores, 100 at most.",
            fields={"experiment": "Letters, digits, dots, dashes and underscores only."},
        )
    try:
        return create(session, name)
    except Conflict:
        found = by_name(session, name)
        if found is None:
            raise
        return found


def create(session: Session, name: str, question: str = "", content: dict[str, Any] | None = None) -> Experiment:
    """Raises Conflict where the name is taken."""
    if by_name(session, name) is not None:
        raise _taken(name)
    experiment = Experiment(name=name, question=question, spec=content or {}, created_at=time.time())
    try:
        with session.begin_nested():
            session.add(experiment)
    except IntegrityError:  # made by somebody else just now
        raise _taken(name) from None
    return experiment


def _taken(name: str) -> Conflict:
    return Conflict(f"There is an experiment “{name}” already.", "Choose another name (`--name`), or delete that one.")


def launch(session: Session, settings: Settings, spec: specs.ExperimentSpec) -> tuple[Experiment, list[Run]]:
    """Launch a whole graph, or nothing of it. Raises Invalid, with fields named `run.field`, or Conflict."""
    planned = specs.plan(spec)
    check_space(settings)
    one_at_a_time(session, "launch")
    errors = check_held_out(session, settings, spec.held_out) if spec.held_out else {}
    experiment = create(session, spec.name, spec.question, _content(session, spec))
    if spec.held_out:
        set_aside_anothers(settings, experiment)
    stages = {run.name: run.config.stage for run in planned}
    made: dict[str, Run] = {}
    for run in planned:
        inputs = check_inputs(session, settings, run.config, experiment, stages)
        errors.update({f"{run.name}.{field}": message for field, message in inputs.errors.items()})
        if errors:
            continue
        parents = [*inputs.parents, *(key for name in run.needs if (key := made[name].id) is not None)]
        made[run.name] = runs.launch(session, experiment, runs.NewRun(run.name, pinned(session, run.config), parents))
    if errors:
        told = " ".join(f"{name}: {message}" for name, message in errors.items())
        raise Invalid(f"The experiment cannot be launched: {told}", fields=errors)
    return experiment, list(made.values())


def _content(session: Session, spec: specs.ExperimentSpec) -> dict[str, Any]:
    """The file as it is kept: a data set whose prompts are held out with its version, which is then read for ever."""
    content = spec.model_dump(mode="json", exclude_defaults=True)
    if spec.held_out:
        content["held_out"]["dataset"] = pin(session, spec.held_out.dataset)
    return content


def launch_one(
    session: Session,
    settings: Settings,
    config: StageConfig,
    *,
    experiment: str = PLAYGROUND,
    name: str = "",
    tags: list[str] | None = None,
    idempotency_key: str | None = None,
) -> Run:
    """Launch one run, in an experiment that is made where it does not exist. No name: `<stage>-<number>`.

    Raises Invalid, with fields named as in the config, or Conflict.
    """
    if name and not NAME.fullmatch(name):
        sentence = "Letters, digits, dots, dashes and underscores, 100 at most."
        raise Invalid(f"“{name[:100]}” cannot be a run's name.", sentence, fields={"name": sentence})
    check_space(settings)
    one_at_a_time(session, "launch")
    owner = get_or_create(session, experiment)
    config = _against_its_baseline(config, owner)
    inputs = check_inputs(session, settings, config, owner)
    if inputs.errors:
        message = " ".join(f"{field}: {sentence}" for field, sentence in inputs.errors.items())
        raise Invalid(message, fields=inputs.errors)
    chosen = name or free_name(session, owner, config.stage)
    new = runs.NewRun(chosen, pinned(session, config), inputs.parents, tags or [], idempotency_key)
    return runs.launch(session, owner, new)


def _against_its_baseline(config: StageConfig, owner: Experiment) -> StageConfig:
    """As in an experiment's file: a judge run that names no baseline has the experiment's."""
    if not isinstance(config, JudgeConfig) or config.baseline:
        return config
    return config.model_copy(update={"baseline": str(owner.spec.get("baseline") or "")})


def free_name(session: Session, experiment: Experiment, stem: str) -> str:
    """`stem-1`, or the next number that no run of this experiment has."""
    taken = set(session.exec(select(Run.name).where(Run.experiment_id == experiment.id)))
    return next(name for number in range(1, len(taken) + 2) if (name := f"{stem}-{number}") not in taken)


def free_experiment_name(session: Session, stem: str) -> str:
    """`stem`, or `stem-2` and so on where it is taken."""
    number = 1
    while by_name(session, name := stem if number == 1 else f"{stem}-{number}") is not None:
        number += 1
    return name
