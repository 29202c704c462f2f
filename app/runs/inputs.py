"""What a config's references point at: checked before a run is launched, found again when a worker starts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlmodel import Session, col, select

from app.models import Dataset, Experiment, Run
from app.runs import states
from app.runs.contents import check_data, check_model
from app.settings import Settings
from training.config import StageConfig, TrainingConfig
from training.errors import TrainingError
from training.model_files import find_shape
from training.references import Reference, parse_reference
from training.rundir import ResolvedInput, RunDir

MODEL_STAGES = frozenset({"sft"})  # stages whose output is a model


@dataclass
class CheckedInputs:
    """What was found. `errors` and `warnings` are sentences by field; `parents` are run ids to wait for."""

    parents: list[int] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)


def field_references(config: StageConfig) -> list[tuple[str, str]]:
    """(field, reference text) of each reference in a config."""
    wanted = set(config.references())
    found = []
    for name in type(config).model_fields:
        value = getattr(config, name)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text in wanted:
                found.append((name, text))
    return found


def check_inputs(
    session: Session,
    settings: Settings,
    config: StageConfig,
    experiment: Experiment | None,
    planned: frozenset[str] = frozenset(),
) -> CheckedInputs:
    """Look every reference up. `planned`: names of runs that are launched together with this one."""
    found = CheckedInputs()
    for name, text in field_references(config):
        reference = parse_reference(text)
        if reference.kind == "run" and reference.name in planned:
            continue
        try:
            message = _check(session, settings, reference, experiment, name, found)
            if message is None:
                _check_contents(session, settings, reference, experiment, name, config)
        except TrainingError as error:
            failure = error.failure
            found.errors.setdefault(failure.field or name, f"{failure.message} {failure.hint}".strip())
        else:
            if message:
                found.errors.setdefault(name, message)
    return found


def _check(
    session: Session,
    settings: Settings,
    reference: Reference,
    experiment: Experiment | None,
    name: str,
    found: CheckedInputs,
) -> str | None:
    """A sentence where the reference cannot be used, else None."""
    if reference.kind == "run":
        run = find_run(session, reference.name, experiment)
        if run is None:
            return f"There is no run “{reference.name}” in this experiment. Elsewhere: run:<experiment>/<name> or run:<id>."
        assert run.id is not None
        found.parents.append(run.id)
        if name == "model" and run.stage not in MODEL_STAGES:
            return f"“{run.name}” is a {run.stage} run: it makes no model."
        if name == "dataset" and run.stage in MODEL_STAGES:
            return f"“{run.name}” is a {run.stage} run: it makes a model, not a data set."
        if run.state in states.UNSUCCESSFUL:
            return f"“{run.name}” is {run.state}: resume or retry it first."
        if run.state == states.FINISHED:
            return _check_checkpoint(RunDir(settings.run_folder(run.id)), reference)
        return None
    if reference.kind == "data":
        return None if find_dataset(session, reference) else _no_dataset(session, reference)
    if reference.kind == "path":
        return _check_path(settings, reference)
    return None


def _check_contents(
    session: Session,
    settings: Settings,
    reference: Reference,
    experiment: Experiment | None,
    name: str,
    config: StageConfig,
) -> None:
    """Look into what was found, as far as it lies on this machine. Raises TrainingError."""
    path = _here(session, settings, reference, experiment)
    if name == "dataset" and reference.kind == "path" and path is not None:
        check_data(path)
    if name == "model" and isinstance(config, TrainingConfig):
        if reference.kind == "new":
            find_shape(reference.name, config.max_length)
        elif path is not None:
            check_model(path, config.max_length)


def _here(session: Session, settings: Settings, reference: Reference, experiment: Experiment | None) -> Path | None:
    """A path's file or folder, or a finished run's model, where this machine has it."""
    if reference.kind == "path":
        return allowed_path(settings, reference.name)
    run = find_run(session, reference.name, experiment) if reference.kind == "run" else None
    if run is None or run.id is None or run.state != states.FINISHED:
        return None
    folder = RunDir(settings.run_folder(run.id)).model
    return folder if folder.is_dir() else None


def _check_checkpoint(run_dir: RunDir, reference: Reference) -> str | None:
    try:
        find_checkpoint(run_dir, reference)
    except LookupError as error:
        return str(error)
    return None


def _no_dataset(session: Session, reference: Reference) -> str:
    versions = session.exec(select(Dataset.version).where(Dataset.name == reference.name)).all()
    if versions:
        return f"“{reference.name}” has no version {reference.version}; it has {', '.join(map(str, sorted(versions)))}."
    return f"There is no data set “{reference.name}”. Upload it first, or choose one from the list."


def find_run(session: Session, name: str, experiment: Experiment | None) -> Run | None:
    """`name` of the experiment, `experiment/name` of another, or an id."""
    owner, slash, own = name.rpartition("/")
    if slash:
        statement = select(Run).join(Experiment).where(Experiment.name == owner, Run.name == own)
        return session.exec(statement).one_or_none()
    if experiment is not None and experiment.id is not None:
        run = session.exec(select(Run).where(Run.experiment_id == experiment.id, Run.name == name)).one_or_none()
        if run is not None:
            return run
    return session.get(Run, int(name)) if name.isascii() and name.isdecimal() and len(name) < 10 else None


def find_dataset(session: Session, reference: Reference) -> Dataset | None:
    """The version asked for, or the latest."""
    statement = select(Dataset).where(Dataset.name == reference.name)
    if reference.version is not None:
        if len(reference.version) > 9:  # Postgres would refuse to compare it
            return None
        statement = statement.where(Dataset.version == int(reference.version))
    return session.exec(statement.order_by(col(Dataset.version).desc())).first()


def _check_path(settings: Settings, reference: Reference) -> str | None:
    path = allowed_path(settings, reference.name)
    if path is None:
        roots = ", ".join(map(str, settings.path_roots)) or "none"
        return f"This path is outside the folders that may be read ({roots}). PREFLAB_ALLOWED_PATHS names them."
    try:
        missing = not path.exists()
    except OSError as error:
        return f"{_shortened(path)} cannot be read: {error.strerror}. Check the path, and who may read it."
    return f"There is no file or folder {_shortened(path)}." if missing else None


def _shortened(path: Path, most: int = 300) -> str:
    text = str(path)
    return text if len(text) <= most else f"{text[:most]}…"


def allowed_path(settings: Settings, name: str) -> Path | None:
    """The real path (links followed), or None where it lies outside the allowed folders."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # ~somebody whom this machine does not know
        return None
    if not path.is_absolute():
        path = next(iter(settings.path_roots), Path.cwd()) / path
    real = path.resolve()
    return real if any(real.is_relative_to(root) for root in settings.path_roots) else None


def pinned(session: Session, config: StageConfig) -> StageConfig:
    """The config with `data:name` as `data:name@version`: a run that is resumed later reads the same file."""
    exact = {text: _pin(session, text) for text in config.references()}
    changes: dict[str, object] = {}
    for name, _ in field_references(config):
        value = getattr(config, name)
        changes[name] = [exact.get(item, item) for item in value] if isinstance(value, list) else exact[value]
    return config.model_copy(update=changes)


def _pin(session: Session, text: str) -> str:
    reference = parse_reference(text)
    found = find_dataset(session, reference) if reference.kind == "data" else None
    return text if found is None else f"data:{found.name}@{found.version}"


def resolve_inputs(session: Session, settings: Settings, run: Run, config: StageConfig) -> dict[str, ResolvedInput]:
    """Where the trainer finds each input. Raises LookupError with a sentence where one is gone."""
    experiment = session.get(Experiment, run.experiment_id)
    return {
        text: _resolve(session, settings, parse_reference(text), experiment) for _, text in field_references(config)
    }


def _resolve(
    session: Session, settings: Settings, reference: Reference, experiment: Experiment | None
) -> ResolvedInput:
    text = str(reference)
    if reference.kind == "run":
        parent = find_run(session, reference.name, experiment)
        if parent is None or parent.state != states.FINISHED:
            raise LookupError(f"The run “{reference.name}” that this one needs is gone or not finished.")
        assert parent.id is not None
        run_dir = RunDir(settings.run_folder(parent.id))
        weights = find_checkpoint(run_dir, reference)
        return ResolvedInput(reference=text, path=str(run_dir.model), weights=None if weights is None else str(weights))
    if reference.kind == "data":
        dataset = find_dataset(session, reference)
        if dataset is None:
            raise LookupError(f"The data set “{reference.name}” that this run needs is gone.")
        path = dataset_path(settings, dataset.sha256)
        return ResolvedInput(reference=text, path=str(path), sha256=dataset.sha256, rows=dataset.rows)
    if reference.kind == "path":
        path_or_none = allowed_path(settings, reference.name)
        if path_or_none is None:
            raise LookupError(f"{reference.name} lies outside the folders that may be read (PREFLAB_ALLOWED_PATHS).")
        return ResolvedInput(reference=text, path=str(path_or_none))
    return ResolvedInput(reference=text)


def find_checkpoint(run_dir: RunDir, reference: Reference) -> Path | None:
    """The checkpoint that a `run:` reference asks for; None for the best, which the run's model is.

    Raises LookupError, which names the checkpoints that there are.
    """
    wanted = reference.options.get("checkpoint", "best")
    if wanted == "best":
        return None
    steps = {int(path.name.removeprefix("step-")): path for path in run_dir.checkpoints.glob("step-*")}
    step = max(steps, default=-1) if wanted == "last" else int(wanted)
    if step not in steps:
        kept = ", ".join(map(str, sorted(steps))) or "none"
        raise LookupError(f"“{reference.name}” keeps no checkpoint of step {wanted}. It has: {kept}.")
    return steps[step]


def dataset_path(settings: Settings, sha256: str) -> Path:
    """The file of a data set version."""
    return settings.datasets_folder / f"{sha256}.jsonl"
