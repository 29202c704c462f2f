"""The data of a run as tokens, and its place in the run's cache, so that a resumed run does not make it again.

The cache may be deleted at any time: the same inputs give the same tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from training.config import TrainingConfig
from training.data.encoding import TokenSet
from training.data.pairs import PairSet
from training.prompts import Prompt
from training.rundir import RunDir, RunFile, write_json
from training.tokenizer import load_tokenizer, save_tokenizer

T = TypeVar("T", TokenSet, PairSet)

DECISIVE = {
    "stage", "model", "dataset", "eval_fraction", "max_length", "loss_on", "seed", "sample_prompts", "sample_count",
}  # fmt: skip
"""The settings that decide the tokens and the prompts, as far as a config has them."""


@dataclass(frozen=True)
class PreparedData(Generic[T]):
    """What a run trains on and measures with, as tokens."""

    tokenizer: Any
    train: T
    held_back: T
    prompts: list[Prompt]

    def fingerprint(self) -> str:
        """SHA-256 of all tokens and of their split."""
        digest = hashlib.sha256()
        for tokens in (self.train, self.held_back):
            for array in (tokens.ids, tokens.scored, tokens.offsets):
                digest.update(array.tobytes())
        return digest.hexdigest()


def cache_key(config: TrainingConfig, run: RunFile, held_out: str | None = None) -> str:
    """A hash of all that decides the tokens. `held_out`: the hash of the held-out prompts' file, where there is one."""
    fields = config.model_dump(include=DECISIVE)
    inputs = [_identity(run, reference) for reference in (config.model, *config.dataset)]
    if held_out is not None and run.held_out is not None:
        inputs.append([run.held_out.dataset, held_out, run.held_out.similarity, run.embedder])
    return hashlib.sha256(orjson.dumps([fields, inputs], option=orjson.OPT_SORT_KEYS)).hexdigest()


def _identity(run: RunFile, reference: str) -> list[object]:
    """What an input is: its hash where that is known, else its file's size and time of change."""
    found = run.inputs.get(reference)
    if found is None or found.path is None:
        return [reference]
    path = Path(found.path)
    files = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return [reference, found.path, found.sha256, facts]


def to_cache(prepared: PreparedData[T], run_dir: RunDir, key: str) -> None:
    """Keep what was made, under the key of what it was made of."""
    folder = run_dir.cache
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "prepared.json").unlink(missing_ok=True)
    prepared.train.save(folder / "train.npz")
    prepared.held_back.save(folder / "eval.npz")
    save_tokenizer(prepared.tokenizer, folder / "tokenizer")
    prompts = [{"text": prompt.text, "ids": prompt.ids} for prompt in prepared.prompts]
    write_json(folder / "prepared.json", {"key": key, "prompts": prompts})


def from_cache(form: type[T], run_dir: RunDir, key: str) -> PreparedData[T] | None:
    """What was kept under this key, or None."""
    folder = run_dir.cache
    try:
        content = orjson.loads((folder / "prepared.json").read_bytes())
        if content["key"] != key:
            return None
        tokens = form.load(folder / "train.npz"), form.load(folder / "eval.npz")
        prompts = [Prompt(prompt["text"], prompt["ids"]) for prompt in content["prompts"]]
        return PreparedData(load_tokenizer(folder / "tokenizer"), *tokens, prompts)
    except (FileNotFoundError, ValueError, KeyError):
        return None
