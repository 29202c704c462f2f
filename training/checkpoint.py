"""Checkpoints that are whole or not there: `checkpoints/step-000100/`.

A checkpoint is written beside its place, every file and the directory synced, `manifest.json` (sizes and SHA-256 of
all files) last; then it is renamed. Reading checks the manifest, so a half-written or damaged one is never used.
No pickle: tensors are safetensors, the rest is JSON.

    model.safetensors      the trained weights, by parameter name, in fp32
    optimizer.safetensors  "<state>/<parameter name>": exp_avg, exp_avg_sq, step
    rng.safetensors        the generators' states
    state.json             TrainState
    manifest.json          {"full": bool, "files": {name: {"bytes": n, "sha256": hex}}}

A checkpoint that is not full holds the weights alone: it is a best one between two full ones.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file
from torch import Tensor, nn

from training.failpoints import failpoint
from training.files import disk_errors, save_tensors, sha256_of, synced
from training.journal import Journal
from training.rundir import RunDir, sync_directory

NAME = re.compile(r"step-(\d{6,12})")


class TrainState(BaseModel):
    """Where a run is, apart from tensors. Everything that decides its next step is here or in the tensors."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    tokens: int = 0  # that went through the model so far
    best_step: int | None = None
    best_eval_loss: float | None = None
    eval_loss: float | None = None  # the latest
    evals_without_best: int = 0
    stopped_early: bool = False
    micro_batch: dict[str, int | None] | None = None
    evaluated: int = -1  # the step of the latest eval
    sampled: int = -1  # the step of the latest samples
    device: str = ""  # device, threads and precision that it ran with
    model: str = ""  # fingerprint of the model that the run began with
    data: str = ""  # fingerprint of the tokens and of their split


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest was checked."""

    path: Path
    step: int
    full: bool

    @property
    def name(self) -> str:
        return self.path.name


class Damaged(Exception):
    """A checkpoint that does not say what was written: never used."""


def save(run_dir: RunDir, model: nn.Module, state: TrainState, optimizer: torch.optim.Optimizer | None,
         rng: dict[str, Tensor], journal: Journal) -> Checkpoint:  # fmt: skip
    """Write a checkpoint of `state.step`: a full one, or without an optimizer the weights alone. Raises DiskFull."""
    place = place_of(run_dir, state.step)
    temporary = run_dir.checkpoints / f".{place.name}.{os.getpid()}.tmp"
    with disk_errors("the checkpoint"):
        run_dir.checkpoints.mkdir(mode=0o700, exist_ok=True)
        try:
            temporary.mkdir(mode=0o700)
            save_tensors(trained_weights(model), temporary / "model.safetensors")
            if optimizer is not None:
                save_tensors(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
                save_tensors(rng, temporary / "rng.safetensors")
            synced(temporary / "state.json", orjson.dumps(state.model_dump(), option=orjson.OPT_INDENT_2))
            _write_manifest(temporary, full=optimizer is not None)
            journal.sync()  # no checkpoint may stand for steps that the journal has lost
            failpoint("before_checkpoint_rename")
            _replace(temporary, place)
            failpoint("after_checkpoint_rename")
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return Checkpoint(place, state.step, optimizer is not None)


def place_of(run_dir: RunDir, step: int) -> Path:
    return run_dir.checkpoints / f"step-{step:06d}"


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, by name; a shared one once."""
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _write_manifest(folder: Path, full: bool) -> None:
    files = {each.name: {"bytes": each.stat().st_size, "sha256": sha256_of(each)} for each in sorted(folder.iterdir())}
    failpoint("before_manifest")
    synced(folder / "manifest.json", orjson.dumps({"full": full, "files": files}, option=orjson.OPT_INDENT_2))
    sync_directory(folder)


def _replace(temporary: Path, place: Path) -> None:
    """Directories cannot be exchanged in one move: one that stands already is of this very step, so it goes first."""
    if place.exists():
        shutil.rmtree(place)
    temporary.rename(place)
    sync_directory(place.parent)


def names(run_dir: RunDir) -> list[tuple[int, Path]]:
    """All checkpoints by step, unchecked, the newest first."""
    if not run_dir.checkpoints.is_dir():
        return []
    found = [(NAME.fullmatch(each.name), each) for each in run_dir.checkpoints.iterdir()]
    return sorted(((int(match[1]), each) for match, each in found if match), reverse=True)


def check(path: Path) -> Checkpoint:
    """Compare a checkpoint with its manifest, byte for byte. Raises Damaged."""
    match = NAME.fullmatch(path.name)
    try:
        manifest: dict[str, Any] = orjson.loads((path / "manifest.json").read_bytes())
        for name, facts in manifest["files"].items():
            if (path / name).stat().st_size != facts["bytes"]:
                raise Damaged(f"{name} has the wrong size")
            if sha256_of(path / name) != facts["sha256"]:
                raise Damaged(f"{name} has changed since it was written")
        if "model.safetensors" not in manifest["files"] or not match:
            raise Damaged("there are no weights")
        return Checkpoint(path, int(match[1]), bool(manifest["full"]))
    except FileNotFoundError as error:
        raise Damaged(f"{Path(error.filename or '').name} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Damaged("manifest.json cannot be read") from None


def newest(run_dir: RunDir, journal: Journal) -> Checkpoint | None:
    """The newest whole and full checkpoint. What is newer, torn or damaged is removed, and said to be."""
    for leftover in run_dir.checkpoints.glob(".step-*.tmp") if run_dir.checkpoints.is_dir() else ():
        shutil.rmtree(leftover, ignore_errors=True)
    passed: list[Path] = []
    found = None
    for _, path in names(run_dir):
        try:
            found = check(path)
        except Damaged as reason:
            journal.log(f"Checkpoint {path.name} is damaged ({reason}) and is not used.", "warning")
            found = None
        if found is not None and found.full:
            break
        passed.append(path)
        found = None
    for path in passed:
        shutil.rmtree(path, ignore_errors=True)
    return found


def load_state(checkpoint: Checkpoint) -> TrainState:
    return TrainState.model_validate_json((checkpoint.path / "state.json").read_bytes())


@torch.no_grad()
def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Put a checkpoint's weights into the model. Raises Damaged where they are another model's."""
    stored = load_file(checkpoint.path / "model.safetensors")
    wanted = trained_weights(model)
    if stored.keys() != wanted.keys() or any(stored[name].shape != wanted[name].shape for name in wanted):
        raise Damaged(f"{checkpoint.name} belongs to another model")
    for name, parameter in wanted.items():
        parameter.copy_(stored[name])


def load_optimizer(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the optimizer's state back, to the last bit."""
    parameters = dict(model.named_parameters())
    for key, value in load_file(checkpoint.path / "optimizer.safetensors").items():
        kind, _, name = key.partition("/")
        parameter = parameters[name]
        on_device = kind != "step" or optimizer.param_groups[0]["fused"]
        optimizer.state[parameter][kind] = value.to(parameter.device) if on_device else value


def rng_state() -> dict[str, Tensor]:
    """The states of all generators that training draws from: torch's, on the CPU and the GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def load_rng(checkpoint: Checkpoint) -> None:
    set_rng_state(load_file(checkpoint.path / "rng.safetensors"))


def prune(run_dir: RunDir, keep: int, best_step: int | None) -> None:
    """Remove old checkpoints: what stays are the best, the newest `keep` full ones, and the best that each of those knows.

    A run that goes on from an older full one, since the newest is damaged, needs the best that was known then.
    """
    full: list[int] = []
    best = {best_step}
    for step, path in names(run_dir):
        if (path / "optimizer.safetensors").exists() and len(full) < keep:
            full.append(step)
            best.add(load_state(Checkpoint(path, step, True)).best_step)
    for step, path in names(run_dir):
        if step not in full and step not in best:
            failpoint("before_prune")
            shutil.rmtree(path, ignore_errors=True)
