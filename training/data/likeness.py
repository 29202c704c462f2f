"""Which prompts may ask the same as one of a few held-out ones: found by their words, then by what they mean.

Embedding every prompt of a large data set takes hours on a CPU. So words come first, as sparse vectors of tf-idf; of the few prompts that share enough of them, those whose numbers, names or replaced words show that they ask
for something else are put aside (training/data/differences.py), and the rest alone are embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from training.data.differences import OVERLAP, Asked, content_stems, other_prompt, overlap

CHUNK = 1024  # texts that are embedded at once
MOST_COSINES = 10_000_000  # that are in memory at once, about 12 bytes each
WORDS_ALIKE = 0.4  # cosine of tf-idf from which two prompts are looked at; rewordings have more (tests/training/data)
LETTERS_ALIKE = 0.9  # cosine of letter n-grams from which two prompts are all but equal, where no embedder is to be had


class Embedder(Protocol):
    """As training.embed gives it."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d), each row of length 1."""

    def reads(self, texts: Sequence[str]) -> list[bool]:
        """Whether it takes in all of a text: it is not too long, and in letters that it knows."""


@dataclass(frozen=True)
class Likeness:
    """The prompt at `index` asks the same as the held-out prompt `held_out`, by this cosine."""

    index: int
    held_out: int
    similarity: float


class Suspects:
    """Finds prompts whose words are like those of a held-out one, rare words counting for more."""

    def __init__(self, held_out: Sequence[Asked]) -> None:
        self._prompts = held_out
        self._vectors = HashingVectorizer(
            analyzer=content_stems, n_features=2**20, binary=True, norm=None, alternate_sign=False, dtype=np.float32
        )
        counts = self._vectors.transform([prompt.normal for prompt in held_out])
        self._weights = TfidfTransformer().fit(counts)
        self._held_out: csr_matrix = self._weights.transform(counts).T.tocsr()  # (features, held-out prompts)

    def find(self, texts: Sequence[str], normals: Sequence[str]) -> list[tuple[int, int]]:
        """Pairs of (prompt, held-out prompt) with words alike, none of which shows that they ask for different things.

        `texts`, `normals`: a block of prompts, and their normal forms.
        """
        found: list[tuple[int, int]] = []
        asked: dict[int, Asked] = {}
        for row, column in self._words_alike(normals):
            prompt = asked.get(row)
            if prompt is None:
                prompt = asked[row] = Asked(texts[row])
            if not other_prompt(prompt, self._prompts[column]):
                found.append((row, column))
        return found

    def _words_alike(self, normals: Sequence[str]) -> Iterator[tuple[int, int]]:
        vectors = self._weights.transform(self._vectors.transform(normals))
        step = max(1, MOST_COSINES // len(self._prompts))
        for start in range(0, len(normals), step):
            cosines = (vectors[start : start + step] @ self._held_out).tocoo()
            enough = cosines.data >= WORDS_ALIKE
            rows, columns = cosines.row[enough] + start, cosines.col[enough]
            yield from zip(rows.tolist(), columns.tolist(), strict=True)


def by_meaning(
    pairs: Sequence[tuple[int, int]],
    texts: Sequence[str],
    held_out: Sequence[Asked],
    embedder: Embedder,
    similarity: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Likeness]:
    """Those of the pairs whose embeddings have this cosine; where the embedder does not read all, common words too.

    `progress(texts done, in all)`.
    """
    rows, columns = sorted({row for row, _ in pairs}), sorted({column for _, column in pairs})
    others = _embedded(embedder, [each.text for each in held_out], columns)
    prompts = _embedded(embedder, texts, rows, progress)
    found = []
    for row, column in pairs:
        (vector, read), (other, other_read) = prompts[row], others[column]
        cosine = float(vector @ other)
        if cosine < similarity:
            continue
        if (read and other_read) or overlap(Asked(texts[row]), held_out[column]) >= OVERLAP:
            found.append(Likeness(row, column, cosine))
    return found


def _embedded(
    embedder: Embedder,
    texts: Sequence[str],
    which: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, tuple[NDArray[np.float32], bool]]:
    """Of each of these texts its embedding, and whether all of it was read."""
    found: dict[int, tuple[NDArray[np.float32], bool]] = {}
    for start in range(0, len(which), CHUNK):
        chunk = which[start : start + CHUNK]
        chosen = [texts[index] for index in chunk]
        found.update(zip(chunk, zip(embedder.encode(chosen), embedder.reads(chosen), strict=True), strict=True))
        progress(len(found), len(which))
    return found


def by_letters(pairs: Sequence[tuple[int, int]], texts: Sequence[str], held_out: Sequence[Asked]) -> list[Likeness]:
    """Those of the pairs that are all but equal, letter by letter."""
    if not pairs:
        return []
    vectors = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), alternate_sign=False)
    left = vectors.transform([Asked(texts[row]).normal for row, _ in pairs])
    right = vectors.transform([held_out[column].normal for _, column in pairs])
    cosines = np.asarray(left.multiply(right).sum(axis=1)).ravel()
    return [
        Likeness(row, column, float(cosine))
        for (row, column), cosine in zip(pairs, cosines, strict=True)
        if cosine >= LETTERS_ALIKE
    ]
