"""Of each vector the nearest of many others, block by block: 100,000 against 100,000 in bounded memory.

A block of products is made, its maximum of each row held against the best so far, and the next block written over it.
Where in the block a maximum stands is looked up only in rows whose best has changed: few, after the first blocks.
On a CPU it is numpy's BLAS, which is a little quicker there than torch (benchmarks/similarity.py); on a GPU, torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

ROWS, COLUMNS = 2048, 2048  # of a block on a CPU: 16 MiB
ON_GPU = 16_384  # rows and columns: 1 GiB
NOTHING = -2.0  # below any cosine

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Nearest:
    """Of each row: the largest cosine, and where it is. -2 and -1 where there is nothing to compare with."""

    cosine: Vectors  # (n,)
    index: NDArray[np.int64]  # (n,)


def nearest(queries: Vectors, others: Vectors, progress: Progress = lambda done, total: None) -> Nearest:
    """Of each query (n, d) the nearest of the others (m, d), all of length 1; of equally near ones the first."""
    return _search(queries, others, False, progress)


def nearest_earlier(vectors: Vectors, progress: Progress = lambda done, total: None) -> Nearest:
    """Of each vector (n, d), all of length 1, the nearest of those that stand before it."""
    return _search(vectors, vectors, True, progress)


def _search(queries: Vectors, others: Vectors, earlier: bool, progress: Progress) -> Nearest:
    queries, others = (np.ascontiguousarray(each, np.float32) for each in (queries, others))
    if torch.cuda.is_available():
        return on_device(queries, others, earlier, torch.device("cuda", 0), progress)
    return on_cpu(queries, others, earlier, progress)


def on_cpu(queries: Vectors, others: Vectors, earlier: bool, progress: Progress) -> Nearest:
    """With numpy."""
    best = Nearest(np.full(len(queries), NOTHING, np.float32), np.full(len(queries), -1, np.int64))
    room = np.empty(ROWS * COLUMNS, np.float32)
    for start in range(0, len(queries), ROWS):
        rows = queries[start : start + ROWS]
        cosine, index = best.cosine[start : start + ROWS], best.index[start : start + ROWS]
        end = start + len(rows) if earlier else len(others)
        for first in range(0, end, COLUMNS):
            columns = others[first : min(first + COLUMNS, end)]
            block = room[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            np.matmul(rows, columns.T, out=block)
            if earlier and first + len(columns) > start:
                block[np.arange(first, first + len(columns)) >= np.arange(start, start + len(rows))[:, None]] = NOTHING
            top = block.max(axis=1)
            better = np.flatnonzero(top > cosine)
            cosine[better] = top[better]
            index[better] = first + block[better].argmax(axis=1)
        progress(start + len(rows), len(queries))
    return best


def on_device(
    queries: Vectors, others: Vectors, earlier: bool, device: torch.device, progress: Progress, size: int = ON_GPU
) -> Nearest:
    """With torch. `size`: rows and columns of a block."""
    found: list[Nearest] = []
    for start in range(0, len(queries), size):
        rows = torch.from_numpy(queries[start : start + size]).to(device)
        cosine = torch.full((len(rows),), NOTHING, device=device)
        index = torch.full((len(rows),), -1, dtype=torch.int64, device=device)
        end = start + len(rows) if earlier else len(others)
        for first in range(0, end, size):
            columns = torch.from_numpy(others[first : min(first + size, end)]).to(device)
            block = rows @ columns.T
            if earlier and first + len(columns) > start:
                block = block.masked_fill(_not_before(start, len(rows), first, len(columns), device), NOTHING)
            top = block.amax(1)
            better = (top > cosine).nonzero()[:, 0]
            if len(better):
                cosine[better] = top[better]
                index[better] = first + block[better].argmax(1)
        found.append(Nearest(cosine.cpu().numpy(), index.cpu().numpy()))
        progress(start + len(rows), len(queries))
    if not found:
        return Nearest(np.empty(0, np.float32), np.empty(0, np.int64))
    return Nearest(np.concatenate([each.cosine for each in found]), np.concatenate([each.index for each in found]))


def _not_before(start: int, rows: int, first: int, columns: int, device: torch.device) -> torch.Tensor:
    places = torch.arange(first, first + columns, device=device)
    return places >= torch.arange(start, start + rows, device=device)[:, None]
