"""Reference log-probabilities, kept so that they are computed once: they depend on (model, tokens) alone. No torch here.

A store is a folder for one reference model in one precision; runs share it. Each entry is a pair's summed
log-probabilities of its two answers, under a hash of all its tokens. So another run over the same pairs, a sweep's
trial, or a run over these and more pairs computes only what is new; and a changed word of the data, of the template,
or another longest example makes other tokens, hence other entries. Files are only ever added, whole: any number of
runs may read and write at once, and all of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.rundir import temporary_beside

KEY_BYTES = 16


class ReferenceStore:
    """What is known of one reference model's log-probabilities."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[bytes, tuple[float, float]] = {}
        for file in sorted(folder.glob("*.npz")):
            self._read(file)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """The places of the keys that are not known yet; of equal keys the first."""
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            first.setdefault(key, place)
        return [place for key, place in first.items() if key not in self._known]

    def find(self, keys: Sequence[bytes]) -> NDArray[np.float32]:
        """(n, 2): log-probability of chosen and of rejected. Raises KeyError where one is not known."""
        return np.array([self._known[key] for key in keys], np.float32).reshape(len(keys), 2)

    def add(self, keys: Sequence[bytes], values: NDArray[np.float32]) -> None:
        """Keep n entries; values (n, 2). Written whole and synced, or not at all. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        raw = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)
        place = self._folder / f"{hashlib.blake2b(raw.tobytes(), digest_size=16).hexdigest()}.npz"
        temporary = temporary_beside(place)
        try:
            with temporary.open("wb") as file:
                np.savez(file, keys=raw, values=values)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        self._known.update(zip(keys, values.tolist(), strict=True))

    def _read(self, file: Path) -> None:
        """Take a file's entries. A damaged one is left aside: its entries are computed again, and it is replaced."""
        try:
            with np.load(file, allow_pickle=False) as content:
                keys, values = content["keys"], content["values"]
        except (OSError, KeyError, EOFError, ValueError, zipfile.BadZipFile):
            return
        sound = keys.dtype == np.uint8 and keys.shape == (len(values), KEY_BYTES) and values.shape == (len(keys), 2)
        if sound and np.isfinite(values).all():
            self._known.update(zip(map(bytes, keys), values.tolist(), strict=True))
