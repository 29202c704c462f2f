"""Texts as embeddings, block by block, kept in the run's cache: what was embedded before a kill is not embedded again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from training.augmenting.similarity import Vectors
from training.embed import Embedder
from training.errors import Stopped
from training.files import disk_errors
from training.journal import Journal
from training.rundir import temporary_beside
from training.throttle import Throttle

BLOCK = 1024  # texts


class Embeddings:
    """An embedder with its results on disk. Blocks are cut by the texts alone, so every attempt gets the same numbers."""

    def __init__(self, embedder: Embedder, folder: Path, journal: Journal, stop: Callable[[], bool]) -> None:
        self._embedder, self._folder, self._journal, self._stop = embedder, folder, journal, stop
        self._bar = Throttle()

    def of(self, texts: Sequence[str], what: str) -> Vectors:
        """(n, d), each of length 1. `what`: of whom, for the journal. Raises Stopped, DiskFull."""
        if not texts:
            return self._embedder.encode([])
        found = []
        for start in range(0, len(texts), BLOCK):
            if self._stop():
                raise Stopped
            found.append(self._block(texts[start : start + BLOCK]))
            if self._bar.ready() or start + BLOCK >= len(texts):
                self._journal.progress(f"embedding {what}", min(len(texts), start + BLOCK), len(texts), "texts")
        return np.concatenate(found)

    def _block(self, texts: Sequence[str]) -> Vectors:
        key = hashlib.sha256("\0".join([self._embedder.name, *texts]).encode("utf-8", "surrogatepass")).hexdigest()
        path = self._folder / f"{key}.npy"
        try:
            found: Vectors = np.load(path, allow_pickle=False)
            if len(found) == len(texts):
                return found
        except (OSError, ValueError, EOFError):
            pass  # not there, or damaged: it is made anew
        found = self._embedder.encode(texts)
        temporary = temporary_beside(path)
        with disk_errors("embeddings"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.save(file, found)
            temporary.replace(path)
        return found
