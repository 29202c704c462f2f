"""A run that is not launched yet: what a form or a script sent, judged field by field, and what it would do."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import create_model
from sqlmodel import Session, col, select

from app.errors import Invalid
from app.experiments import service as experiments
from app.experiments import spec as specs
from app.models import Experiment, Run, Worker
from app.runs import forms, states
from app.runs.contents import model_facts
from app.runs.inputs import allowed_path, check_inputs, find_dataset, find_run, pinned
from app.runs.plan import RUNTIME, DataFacts, Machine, ModelSize, plan, warnings
from app.settings import Settings
from training.config import STAGES, InvalidConfig, StageConfig, TrainingConfig, parse_config
from training.model_files import NEW_SHAPES, estimate_parameters, read_model_config
from training.references import NAME, Reference, parse_reference
from training.rundir import RunDir

NAME_SENTENCE = "Letters, digits, dots, dashes and underscores, 100 at most."
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


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
    return judged


def _check_names(session: Session, draft: Draft, judged: Judged) -> Experiment | None:
    if not NAME.fullmatch(draft.experiment):
        judged.errors["experiment"] = NAME_SENTENCE
        return None
    owner = experiments.by_name(session, draft.experiment)
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
    judged.warnings.update(warnings(config, data, model, machine))
    for name in judged.errors:
        judged.warnings.pop(name, None)


def data_facts(session: Session, config: TrainingConfig) -> DataFacts:
    """Rows and characters of all data sets together, where all of them are uploads."""
    rows, characters, turns = 0, 0.0, 0
    measured = _measured_length(session, config)
    for text in config.dataset:
        reference = parse_reference(text)
        dataset = find_dataset(session, reference) if reference.kind == "data" else None
        if dataset is None:
            return DataFacts(rows=reference.rows if len(config.dataset) == 1 else None, measured=measured)
        rows += dataset.rows
        characters += float(dataset.facts.get("characters", math.nan))
        turns += int(dataset.facts.get("turns", 0))
    return DataFacts(rows, None if math.isnan(characters) else round(characters), turns, measured)


def _measured_length(session: Session, config: TrainingConfig) -> float | None:
    """Tokens an example, of the latest run with the same model, data and longest example."""
    same = pinned(session, config).model_dump(mode="json", include={"model", "dataset", "max_length"})
    for content, summary in _earlier(session, config):
        tokens = summary.get("tokens", {})
        if tokens.get("last") and tokens.get("step") and same.items() <= content.items():
            return float(tokens["last"]) / tokens["step"] / int(content["batch_size"])
    return None


def _earlier(session: Session, config: TrainingConfig) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(config, summary) of the latest runs of this stage that began."""
    statement = select(Run.config, Run.summary).where(Run.stage == config.stage, col(Run.started_at).is_not(None))
    return [(content, summary) for content, summary in session.exec(statement.order_by(col(Run.id).desc()).limit(50))]


def model_size(session: Session, settings: Settings, reference: Reference, owner: Experiment | None) -> ModelSize:
    """What is known of a model before a worker has it; `check_inputs` found nothing wrong with it."""
    if reference.kind == "new":
        shape = NEW_SHAPES[reference.name]
        return _size(shape.config(), estimate_parameters(shape.config()), shape.max_positions, 4, fresh=True)
    if reference.kind == "path":
        folder = allowed_path(settings, reference.name)
        return ModelSize() if folder is None else _inspected(folder)
    if reference.kind == "run":
        run = find_run(session, reference.name, owner)
        if run is None or run.id is None or run.state != states.FINISHED:
            return ModelSize(unknown="until that run has finished")
        folder = RunDir(settings.run_folder(run.id)).model
        if folder.is_dir():
            return _inspected(folder)
        return ModelSize(unknown="since that run's model lies on another machine")
    return ModelSize(unknown="until a worker has it from the Hub")


def _inspected(folder: Path) -> ModelSize:
    facts = model_facts(folder)
    config = read_model_config(folder)
    return _size(config, facts.parameters, facts.max_positions, DTYPE_BYTES.get(facts.dtype, 4), fresh=False)


def _size(config: Mapping[str, Any], parameters: int, positions: int | None, dtype: int, *, fresh: bool) -> ModelSize:
    def count(*keys: str) -> int:
        return next((int(value) for key in keys if isinstance(value := config.get(key), int)), 0)

    hidden = count("hidden_size", "n_embd")
    return ModelSize(
        parameters=parameters,
        hidden=hidden,
        layers=count("num_hidden_layers", "n_layer"),
        intermediate=count("intermediate_size", "n_inner") or 4 * hidden,
        vocab=count("vocab_size"),
        max_positions=positions,
        dtype_bytes=dtype,
        fresh=fresh,
    )


def find_machine(session: Session, settings: Settings, config: TrainingConfig) -> Machine:
    """The device of the worker that was seen last, and how fast an earlier run of this model was."""
    worker = session.exec(select(Worker).order_by(col(Worker.seen_at).desc()).limit(1)).first()
    device = worker.devices[0] if worker is not None and worker.devices else {}
    speed = None
    for content, summary in _earlier(session, config):
        value = summary.get("tokens_per_second", {}).get("last")
        if content.get("model") == config.model and value:
            speed = float(value)
            break
    try:
        free = shutil.disk_usage(settings.home).free
    except OSError:
        free = None
    total = device.get("memory_total")
    runtime = RUNTIME if device.get("key") == "cpu" else 0
    return Machine(
        str(device.get("name", "")), total if isinstance(total, int) else None, speed, runtime=runtime, free_disk=free
    )


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
    for key, value in _flat(changes(config)).items():
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
        parts.append("--set " + shlex.quote(f"{key}={text.removesuffix('...' + chr(10)).strip()}"))
    return " \\\n  ".join(parts)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """A list of one data set as that data set."""
    return {k: v[0] if k == "dataset" and isinstance(v, list) and len(v) == 1 else v for k, v in values.items()}


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
