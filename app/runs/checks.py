"""A config's references, looked up and looked into before a run is launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from sqlmodel import Session, select

from app.datasets.flaws import Flaws, flaws_of, in_words
from app.models import Dataset, Experiment, Run
from app.runs import states
from app.runs.asking import answering_runs, check_asked, has_answers, taken_names
from app.runs.contents import check_data, check_model, check_tokenizers
from app.runs.inputs import (
    MODEL_STAGES,
    WRITING_STAGES,
    augmented,
    find_checkpoint,
    find_dataset,
    find_run,
)
from app.runs.place import Place, existing
from app.settings import Settings
from training.config import JudgeConfig, RespondConfig, StageConfig, TrainingConfig
from training.data.formats import check_kind
from training.data.rows import Kind
from training.errors import InputError, TrainingError
from training.model_files import find_shape
from training.references import Reference, parse_reference
from training.rundir import RunDir

NOTHING_PLANNED: Mapping[str, str] = {}


@dataclass
class CheckedInputs:
    """What was found. `errors` and `warnings` are sentences by field; `parents` are run ids to wait for."""

    parents: list[int] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)


def check_inputs(
    session: Session,
    settings: Settings,
    config: StageConfig,
    experiment: Experiment | None,
    planned: Mapping[str, str] = NOTHING_PLANNED,
) -> CheckedInputs:
    """Look every reference up. `planned`: the stage, by name, of each run that is launched together with this one."""
    place = Place(session, settings, experiment, planned)
    found, flaws = CheckedInputs(), dict[str, Flaws]()
    for name, text in config.references():
        if not text:  # of a draft whose field is wrong or empty
            continue
        reference = parse_reference(text)
        try:
            run = _find_parent(place, reference, name)
            if run is not None and run.id is not None:
                found.parents.append(run.id)
                _check_parent(place, run, reference)
            if name == "dataset":
                flaws |= check_dataset(place, reference, config.stage)
            elif name == "prompts":
                check_dataset(place, reference, config.stage)
            elif isinstance(config, TrainingConfig):
                _check_model(place, reference, name, config)
            else:
                check_asked(place, reference, name, config)
        except TrainingError as error:
            _note(found, error, name)
    sentences = [(file, sentence) for file, each in flaws.items() for sentence in in_words(each)]
    if sentences:
        found.warnings["dataset"] = " ".join(said if len(flaws) == 1 else f"{file}: {said}" for file, said in sentences)
    try:
        _check_reference_model(place, config, found.errors)
    except TrainingError as error:
        _note(found, error, "reference_model")
    if isinstance(config, RespondConfig) and config.model and config.prompts:
        found.errors |= taken_names(session, experiment, config)
    if isinstance(config, JudgeConfig) and not config.responses:
        _check_answers(place, found)
    return found


def _check_answers(place: Place, found: CheckedInputs) -> None:
    """A judge run that names no answers waits for those that are being made. An error where there are none."""
    coming = answering_runs(place)
    found.parents += coming
    if not (coming or has_answers(place) or "respond" in place.planned.values()):
        found.errors.setdefault(
            "responses",
            "This experiment has no answers, and no run that makes some. Launch a respond run first, or import answers.",
        )


def _note(found: CheckedInputs, error: TrainingError, name: str) -> None:
    failure = error.failure
    found.errors.setdefault(failure.field or name, f"{failure.message} {failure.hint}".strip())


def _find_parent(place: Place, reference: Reference, name: str) -> Run | None:
    """The run that a reference names, None where it names none or one that is launched together with this one.

    Raises InputError where there is no such run, or it makes something else than the field takes.
    """
    if reference.kind != "run":
        return None
    if reference.name in place.planned:
        _check_stage(reference.name, place.planned[reference.name], name, reference)
        return None
    run = find_run(place.session, reference.name, place.experiment)
    if run is None:
        raise InputError(
            f"There is no run “{reference.name}” in this experiment.", "Elsewhere: run:<experiment>/<name> or run:<id>."
        )
    _check_stage(run.name, run.stage, name, reference)
    if name == "responses" and (place.experiment is None or run.experiment_id != place.experiment.id):
        raise InputError("Only answers of the same experiment are judged together.", "Name the run as run:<name>.")
    return run


def _check_stage(run: str, stage: str, name: str, reference: Reference) -> None:
    if "part" in reference.options and (name != "dataset" or stage != "augment"):
        raise InputError("Only an augment run's data has parts.", f"Write run:{reference.name}.")
    if name == "dataset":
        if stage != "augment":
            raise InputError(
                f"“{run}” is a {stage} run: it makes no data set.", "Choose an augment run, or data:<an upload>."
            )
        if "checkpoint" in reference.options:
            raise InputError("An augment run keeps no checkpoints.", f"Write run:{reference.name}.")
        return
    if name == "responses":
        if stage != "respond":
            raise InputError(f"“{run}” is a {stage} run: it makes no answers.", "Choose respond runs.")
    elif name == "judge":
        if stage != "reward":
            raise InputError(f"“{run}” is a {stage} run: its model gives no scores.", "Choose a reward run.")
    elif stage not in MODEL_STAGES:
        raise InputError(f"“{run}” is a {stage} run: it makes no model.")
    elif stage not in WRITING_STAGES:
        raise InputError(
            f"“{run}” is a {stage} run: its model judges answers, it writes none.", "Choose an sft or a dpo run."
        )


def _check_parent(place: Place, run: Run, reference: Reference) -> None:
    if run.state in states.UNSUCCESSFUL:
        raise InputError(f"“{run.name}” is {run.state}: resume or retry it first.")
    if run.state == states.FINISHED:
        run_dir = RunDir(place.settings.run_folder(run.id or 0))
        try:
            if run.stage == "augment":
                augmented(run_dir, reference)
            else:
                find_checkpoint(run_dir, reference)
        except LookupError as error:
            raise InputError(str(error)) from None


def check_dataset(place: Place, reference: Reference, stage: str) -> dict[str, Flaws]:
    """The flaws of its pairs by file, as far as they are known. Raises InputError, DataError."""
    if reference.kind == "held_out":
        if place.experiment is None or not place.experiment.spec.get("held_out"):
            raise InputError(
                "This experiment holds no prompts out.",
                "Give its file a held_out section, or name prompts as data:<upload>, hf:<Hub id> or path:<file>.",
            )
        return {}
    if reference.kind == "data":
        dataset = find_dataset(place.session, reference)
        if dataset is None:
            raise InputError(_no_dataset(place.session, reference))
        name = f"data:{dataset.name}@{dataset.version}"
        check_kind(name, cast(Kind, dataset.kind), stage)
        return {name: flaws_of(dataset.facts)}
    if reference.kind == "run":
        return _check_augmented(place, reference, stage)
    return check_data(existing(place, reference), stage) if reference.kind == "path" else {}


def _check_augmented(place: Place, reference: Reference, stage: str) -> dict[str, Flaws]:
    """An augment run makes pairs; what remains is of the kind that it drew from. Raises InputError, DataError."""
    if reference.options.get("part") != "remaining":
        check_kind(str(reference), "preference", stage)
        return {}
    run = None if reference.name in place.planned else find_run(place.session, reference.name, place.experiment)
    if run is None or run.id is None:
        return {}
    file = RunDir(place.settings.run_folder(run.id)).remaining
    if run.state == states.FINISHED and file.is_file():
        return check_data(file, stage)
    for text in run.config.get("dataset", []):
        check_dataset(place, parse_reference(text), stage)
    return {}


def _check_model(place: Place, reference: Reference, name: str, config: TrainingConfig) -> None:
    """Raises InputError, ModelError."""
    if reference.kind == "new" and name == "model":
        find_shape(reference.name, config.max_length)
    folder = _model_here(place, reference)
    if folder is not None:
        check_model(folder, config.max_length)


def _check_reference_model(place: Place, config: StageConfig, wrong: Mapping[str, str]) -> None:
    """That the reference is a model whose answers can be held against those of `model`. Raises InputError, ModelError."""
    text, model = getattr(config, "reference_model", None), getattr(config, "model", None)
    if text is None or model is None or text == model:
        return
    if text.startswith("new:"):
        raise InputError(
            f"{text} would be a model of other random weights than the one that is trained.",
            "Leave it empty: then the reference is the model as it begins.",
        )
    if model.startswith("new:"):
        raise InputError(
            "A fresh model gets a tokenizer of its own, so no other model can be its reference.",
            "Leave it empty: then the reference is the model as it begins.",
        )
    if wrong.keys() & {"model", "reference_model"}:
        return
    folders = [_model_here(place, parse_reference(each)) for each in (model, text)]
    if folders[0] is not None and folders[1] is not None:
        check_tokenizers(folders[0], folders[1])


def _model_here(place: Place, reference: Reference) -> Path | None:
    """A path's folder, or a finished run's model, where this machine has it. Raises InputError."""
    if reference.kind == "path":
        return existing(place, reference)
    if reference.kind != "run" or reference.name in place.planned:
        return None
    run = find_run(place.session, reference.name, place.experiment)
    if run is None or run.id is None or run.state != states.FINISHED:
        return None
    folder = RunDir(place.settings.run_folder(run.id)).model
    return folder if folder.is_dir() else None


def _no_dataset(session: Session, reference: Reference) -> str:
    versions = session.exec(select(Dataset.version).where(Dataset.name == reference.name)).all()
    if versions:
        return f"“{reference.name}” has no version {reference.version}; it has {', '.join(map(str, sorted(versions)))}."
    return f"There is no data set “{reference.name}”. Upload it first, or choose one from the list."
