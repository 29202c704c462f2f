"""What a config's references point at: found for the checks before a launch, and again when a worker starts the run."""

from __future__ import annotations

from pathlib import Path

from sqlmodel import Session, col, select

from app.models import Dataset, Experiment, Run
from app.runs import states
from app.settings import Settings
from training.config import StageConfig
from training.references import Reference, parse_reference
from training.rundir import ResolvedInput, RunDir

WRITING_STAGES = frozenset({"sft", "dpo"})  # stages whose output is a model that writes: one to go on from
MODEL_STAGES = WRITING_STAGES | {"reward"}  # stages whose output is a model of any kind


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
    exact = {text: pin(session, text) for _, text in config.references() if text.startswith("data:")}
    changes: dict[str, object] = {}
    for name in {name for name, text in config.references() if text in exact}:
        value = getattr(config, name)
        changes[name] = [exact.get(item, item) for item in value] if isinstance(value, list) else exact[value]
    return config.model_copy(update=changes)


def pin(session: Session, text: str) -> str:
    """A reference to a data set with its version, the latest where it names none; any other as it is."""
    reference = parse_reference(text)
    found = find_dataset(session, reference) if reference.kind == "data" else None
    return text if found is None else f"data:{found.name}@{found.version}"


def resolve_inputs(session: Session, settings: Settings, run: Run, config: StageConfig) -> dict[str, ResolvedInput]:
    """Where the trainer finds each input. Raises LookupError with a sentence where one is gone."""
    experiment = session.get(Experiment, run.experiment_id)
    return {text: resolve(session, settings, parse_reference(text), experiment) for _, text in config.references()}


def resolve(session: Session, settings: Settings, reference: Reference, experiment: Experiment | None) -> ResolvedInput:
    """Where the trainer finds one input. Raises LookupError with a sentence where it is gone."""
    text = str(reference)
    if reference.kind == "run":
        parent = find_run(session, reference.name, experiment)
        if parent is None or parent.state != states.FINISHED:
            raise LookupError(f"The run “{reference.name}” that this one needs is gone or not finished.")
        assert parent.id is not None
        run_dir = RunDir(settings.run_folder(parent.id))
        if parent.stage == "respond":
            return ResolvedInput(reference=text, path=str(run_dir.responses))
        if parent.stage == "augment":
            return ResolvedInput(reference=text, path=str(augmented(run_dir, reference)))
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
    if reference.kind == "api":
        url = settings.endpoints.get(reference.name.partition("/")[0])
        if url is None:
            raise LookupError(no_endpoint(settings, reference))
        return ResolvedInput(reference=text, url=url)
    return ResolvedInput(reference=text)


def augmented(run_dir: RunDir, reference: Reference) -> Path:
    """The data file of a finished augment run that a `run:` reference names: its pairs, or the rows that remain.

    Raises LookupError with a sentence where there is none.
    """
    if reference.options.get("part") != "remaining":
        if not run_dir.pairs.is_file():
            raise LookupError(f"The pairs that “{reference.name}” made are not on this machine.")
        return run_dir.pairs
    if not run_dir.remaining.is_file():
        raise LookupError(f"The rows that “{reference.name}” left are not on this machine.")
    if not run_dir.remaining.stat().st_size:
        raise LookupError(
            f"“{reference.name}” drew all prompts of its data, so no rows remain: name its pairs alone, as "
            f"run:{reference.name}, or draw a smaller share."
        )
    return run_dir.remaining


def no_endpoint(settings: Settings, reference: Reference) -> str:
    """What to say of an endpoint that the settings do not name."""
    there = ", ".join(settings.endpoints) or "none"
    return (
        f"The settings name no endpoint “{reference.name.partition('/')[0]}” (PREFLAB_ENDPOINTS has: {there}). "
        "Name it there as name=url, and start Preflab again."
    )


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
