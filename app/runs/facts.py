"""What is known of a run before it starts: its data, its model, the machine. What the panel and its warnings rest on."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app.datasets.flaws import flaws_of, left_out
from app.models import Experiment, Run, Worker
from app.runs import states
from app.runs.contents import model_facts
from app.runs.inputs import allowed_path, find_dataset, find_run, pinned
from app.runs.plan import RUNTIME, DataFacts, Machine, ModelSize
from app.settings import Settings
from training.config import TrainingConfig
from training.model_files import NEW_SHAPES, estimate_parameters, read_model_config
from training.references import Reference, parse_reference
from training.rundir import RunDir

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def data_facts(session: Session, config: TrainingConfig) -> DataFacts:
    """Rows and characters of all data sets together, where all of them are uploads. Pairs with a flaw do not count."""
    rows, characters, turns = 0, 0.0, 0
    measured = _measured_length(session, config)
    for text in config.dataset:
        reference = parse_reference(text)
        dataset = find_dataset(session, reference) if reference.kind == "data" else None
        if dataset is None:
            return DataFacts(rows=reference.rows if len(config.dataset) == 1 else None, measured=measured)
        rows += dataset.rows - left_out(flaws_of(dataset.facts))
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


TUNED = re.compile(r"instruct|chat|sft|dpo|rlhf|(^|[-_])it($|[-_])", re.IGNORECASE)
"""In a model's name: it has learned to answer."""


def model_size(session: Session, settings: Settings, reference: Reference, owner: Experiment | None) -> ModelSize:
    """What is known of a model before a worker has it; `check_inputs` found nothing wrong with it."""
    if reference.kind == "new":
        shape = NEW_SHAPES[reference.name]
        size = _size(shape.config(), estimate_parameters(shape.config()), shape.max_positions, 4)
        return replace(size, fresh=True, can_chat=False)
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
    return ModelSize(can_chat=bool(TUNED.search(reference.name)), unknown="until a worker has it from the Hub")


def _inspected(folder: Path) -> ModelSize:
    facts = model_facts(folder)
    size = _size(read_model_config(folder), facts.parameters, facts.max_positions, DTYPE_BYTES.get(facts.dtype, 4))
    return replace(size, can_chat=facts.has_chat_template)


def _size(config: Mapping[str, Any], parameters: int, positions: int | None, dtype: int) -> ModelSize:
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
