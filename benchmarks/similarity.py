"""Seconds and memory of finding the nearest of 100,000 embeddings for each of 100,000, against the products alone.

    python -m benchmarks.similarity [--rows 100000] [--dimensions 384] [--slices 20]

What the search does beside its matrix products (the maximum of each row, and where it stands) costs what their share of
its time leaves. Products alone and search take turns, slice by slice of the rows, so that what else the machine does
slows down both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.about import about
from training.augmenting.similarity import COLUMNS, ON_GPU, ROWS, Vectors, nearest


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the search for near-duplicates.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--slices", type=int, default=20)
    options = parser.parse_args()

    queries, others = (made(options.rows, options.dimensions, seed) for seed in (0, 1))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    alone = searched = 0.0
    size = -(-options.rows // options.slices // ROWS) * ROWS
    for start in range(0, options.rows, size):
        rows = queries[start : start + size]
        alone += timed(partial(products, rows, others))
        searched += timed(partial(nearest, rows, others))
    operations = 2 * options.rows**2 * options.dimensions
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, numpy"
    print(about("numpy", "torch"))
    print(f"{options.rows:,} x {options.rows:,} x {options.dimensions} on {where}:")
    print(f"  products alone {alone:.1f} s, {operations / alone / 1e9:,.0f} GFLOP/s")
    print(f"  search         {searched:.1f} s: the products are {alone / searched:.0%} of it")
    print(
        f"  memory         {(memory('VmHWM') - before) / 2**20:,.0f} MiB above the two sets of vectors ({before / 2**20:,.0f} MiB)"
    )


def made(count: int, dimensions: int, seed: int) -> Vectors:
    drawn = np.random.default_rng(seed).standard_normal((count, dimensions), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def products(rows: Vectors, others: Vectors) -> None:
    """The same matrix products, in the same blocks, and nothing else."""
    if torch.cuda.is_available():
        products_on_gpu(rows, others)
        return
    room = np.empty(ROWS * COLUMNS, np.float32)
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        for first in range(0, len(others), COLUMNS):
            columns = others[first : first + COLUMNS]
            np.matmul(some, columns.T, out=room[: len(some) * len(columns)].reshape(len(some), len(columns)))


def products_on_gpu(rows: Vectors, others: Vectors) -> None:
    for start in range(0, len(rows), ON_GPU):
        some = torch.from_numpy(rows[start : start + ON_GPU]).cuda()
        for first in range(0, len(others), ON_GPU):
            some @ torch.from_numpy(others[first : first + ON_GPU]).cuda().T
    torch.cuda.synchronize()


def timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def memory(name: str) -> int:
    """Bytes: VmRSS, what this process holds now; VmHWM, the most that it has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024


if __name__ == "__main__":
    main()
