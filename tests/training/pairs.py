"""Pairs as random tokens, for the tests of what goes through a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.data.pairs import PairSet

UNEQUAL = [(5, 7, 9), (30, 2, 40), (1, 1, 3), (12, 60, 1), (40, 3, 3)]
"""Tokens of prompt, chosen and rejected; a prompt of one token and answers of one among them."""


def random_pairs(lengths: Sequence[tuple[int, int, int]] = UNEQUAL, vocabulary: int = 250, seed: int = 0) -> PairSet:
    """Pairs of such lengths. Every third token of an answer is not scored, but never its last."""
    draw = np.random.default_rng(seed)
    scored = [
        [False] * prompt + [(left % 3 != 2) for left in reversed(range(chosen))]
        + [(left % 3 != 2) for left in reversed(range(rejected))]
        for prompt, chosen, rejected in lengths
    ]  # fmt: skip
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = draw.integers(0, vocabulary, offsets[-1]).astype(np.int32)
    return PairSet(ids, np.concatenate(scored).astype(np.bool_), offsets, np.arange(len(lengths)))
