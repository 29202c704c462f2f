"""A run that is not launched yet: what a form or a script sent, judged field by field, and what it would do."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_origin

import yaml
from pydantic import create_model
from sqlmodel import Session, select

from app.errors import Invalid
from app.experiments import service as experiments
from app.experiments import spec as specs
from app.models import Experiment, Run
from app.runs import forms
from app.runs.advice import warnings
from app.runs.checks import check_inputs
from app.runs.facts import data_facts, find_machine, model_size
from app.runs.plan import ModelSize, plan
from app.runs.plan_asking import plan_asking
from app.settings import Settings
from training.config import STAGES, InvalidConfig, StageConfig, TrainingConfig, parse_config
from training.references import NAME, parse_reference

NAME_SENTENCE = "Letters, digits, dots, dashes and underscores, 100 at most."


@dataclass(frozen=True)
class Draft:
    """What was asked for. `content`: the config's fields, as texts of a form or as typed JSON."""

    stage: str
    content: Mapping[str, Any]
    name: str = ""
    experiment: str = experiments.PLAYGROUND


@dataclass
class Judged:
    """What is wrong with a draft, by field, and what it would do. `config` is None where a field is wrong."""

    config: StageConfig | None = None
    errors: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    plan: list[dict[str, str]] = field(default_factory=list)


def config_of(draft: Draft) -> StageConfig:
    """The draft's valid config. Raises InvalidConfig."""
    kind = STAGES.get(draft.stage)
    content = forms.read(kind, draft.content) if kind else dict(draft.content)
    return parse_config({**content, "stage": draft.stage})


def _sound_part(draft: Draft, wrong: Mapping[str, str]) -> StageConfig | None:
    """The config without its wrong fields: their defaults, or nothing, stand in for them. None where the stage is
    unknown. Its references can be looked up already."""
    kind = STAGES.get(draft.stage)
    if kind is None:
        return None
    content = {name: value for name, value in forms.read(kind, draft.content).items() if name not in wrong}
    nothing = {
        name: (Any, ([] if get_origin(info.annotation) is list else None) if info.is_required() else info.get_default())
        for name, info in kind.model_fields.items()
        if name in wrong
    }
    make: Any = create_model
    sound: StageConfig = make("SoundPart", __base__=kind, **nothing).model_validate({**content, "stage": draft.stage})
    return sound


def judge(session: Session, settings: Settings, draft: Draft) -> Judged:
    """Check everything that can be known before the launch."""
    judged = Judged()
    owner = _check_names(session, draft, judged)
    try:
        judged.config = config_of(draft)
    except InvalidConfig as error:
        judged.errors.update(error.fields)
        rest = _sound_part(draft, error.fields)
        if rest is not None:
            found = check_inputs(session, settings, rest, owner).errors
            judged.errors = {**found, **judged.errors}  # of a wrong field, what is wrong with it itself
        return judged
    inputs = check_inputs(session, settings, judged.config, owner)
    judged.errors.update(inputs.errors)
    judged.warnings.update(inputs.warnings)
    if isinstance(judged.config, TrainingConfig):
        _judge_training(session, settings, judged, judged.config, owner)
    elif not judged.errors:
        judged.plan = [asdict(line) for line in plan_asking(session, judged.config, owner)]
    return judged


def _check_names(session: Session, draft: Draft, judged: Judged) -> Experiment | None:
    owner = experiments.by_name(session, draft.experiment)
    if owner is None and not NAME.fullmatch(draft.experiment):  # that of an experiment file may be a question
        judged.errors["experiment"] = NAME_SENTENCE
        return None
    if draft.name and not NAME.fullmatch(draft.name):
        judged.errors["name"] = NAME_SENTENCE
    elif draft.name and owner is not None and find_in(session, owner, draft.name) is not None:
        judged.errors["name"] = f"“{draft.experiment}” has a run of this name already."
    return owner


def find_in(session: Session, owner: Experiment, name: str) -> Run | None:
    return session.exec(select(Run).where(Run.experiment_id == owner.id, Run.name == name)).one_or_none()


def _judge_training(
    session: Session, settings: Settings, judged: Judged, config: TrainingConfig, owner: Experiment | None
) -> None:
    data, model = data_facts(session, config), ModelSize()
    if "model" not in judged.errors:
        model = model_size(session, settings, parse_reference(config.model), owner)
    machine = find_machine(session, settings, config)
    judged.plan = [asdict(line) for line in plan(config, data, model, machine)]
    judged.warnings = warnings(config, data, model, machine) | judged.warnings
    for name in judged.errors:
        judged.warnings.pop(name, None)


def changes(config: StageConfig) -> dict[str, Any]:
    """The config's values that are not defaults: what a person chose."""
    return config.model_dump(mode="json", exclude_defaults=True, exclude={"stage"})


def as_yaml(draft: Draft, config: StageConfig) -> str:
    """The experiment file that launches the same run."""
    name = draft.name or config.stage
    content = {"name": draft.experiment, "runs": {name: {"stage": config.stage, **_flat(changes(config))}}}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def as_command(draft: Draft, config: StageConfig) -> str:
    """The command line that launches the same run."""
    parts = [f"preflab launch --stage {config.stage}"]
    if draft.name:
        parts.append(f"--name {shlex.quote(draft.name)}")
    if draft.experiment != experiments.PLAYGROUND:
        parts.append(f"--experiment {shlex.quote(draft.experiment)}")
    for key, value in _joined(changes(config)).items():
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
        parts.append("--set " + shlex.quote(f"{key}={text.removesuffix('...' + chr(10)).strip()}"))
    return " \\\n  ".join(parts)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """A list of one data set as that data set."""
    return {k: v[0] if k == "dataset" and isinstance(v, list) and len(v) == 1 else v for k, v in values.items()}


def _joined(values: dict[str, Any]) -> dict[str, Any]:
    """Several data sets with commas between, as the form takes them, unless one has a comma in its own name."""
    names = values.get("dataset", [])
    return (
        values if any("," in name for name in names) else {**values, **({"dataset": ",".join(names)} if names else {})}
    )


def from_yaml(text: str) -> Draft:
    """The one run of an experiment file, or a bare config. Raises Invalid."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        content = None  # said by what reads it next
    if isinstance(content, dict) and "runs" not in content and "stage" in content:
        return Draft(str(content["stage"]), {key: value for key, value in content.items() if key != "stage"})
    spec = specs.parse_yaml(text)
    if len(spec.runs) != 1:
        raise Invalid(
            f"This file has {len(spec.runs)} runs; the form shows one.", "Launch it whole from the experiments' page."
        )
    (name, run), *_ = spec.runs.items()
    owner = spec.name if NAME.fullmatch(spec.name) else experiments.PLAYGROUND
    return Draft(str(run.get("stage", "")), {k: v for k, v in run.items() if k != "stage"}, name, owner)
