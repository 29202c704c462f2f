"""Where the models are that a run asks: folders here, fetched if need be, and endpoints that the settings name."""

from __future__ import annotations

from pathlib import Path

from training.commits import Commits
from training.config.asking import AskingConfig
from training.endpoint import Endpoint
from training.errors import InputError
from training.hub import fetch_model
from training.journal import Journal
from training.model_files import CAUSAL
from training.references import parse_reference
from training.rundir import RunDir, RunFile


def find_folder(
    text: str, field: str, run: RunFile, run_dir: RunDir, journal: Journal, ends: tuple[str, ...] = CAUSAL
) -> Path:
    """A model's folder. `field`: the setting that names it; `ends`: of its architecture's name. Raises TrainingError."""
    reference, found = parse_reference(text), run.inputs.get(text)
    if reference.kind == "hf":
        return fetch_model(reference, journal, Commits(run_dir.commits), ends)
    if found is None or found.path is None:
        raise InputError(f"{text} was not found.", f"Check the name, or choose another {field}.", field=field)
    return Path(found.path)


def find_endpoint(text: str, field: str, run: RunFile, config: AskingConfig, journal: Journal) -> tuple[Endpoint, str]:
    """A model behind an endpoint, and the endpoint's address. Raises InputError."""
    reference, found = parse_reference(text), run.inputs.get(text)
    if found is None or found.url is None:
        name = reference.name.partition("/")[0]
        raise InputError(
            f"The settings name no endpoint “{name}”.", "Name it in PREFLAB_ENDPOINTS, as name=url.", field=field
        )
    return Endpoint(reference, found.url, config, journal), found.url
