"""Which examples a step trains on, and how they are cut into what fits the device. Pure functions of (seed, step).

The order of an epoch depends on the seed and the epoch alone, so a resumed run needs no position but its step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=2)  # a step may touch two epochs
def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `count` examples in an epoch (from 0)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def total_steps(count: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps`, or what the epochs make, the last step perhaps with fewer examples."""
    return max_steps or max(1, math.ceil(round(epochs * count) / batch_size))


def examples_of_step(step: int, count: int, batch_size: int, seed: int, limit: int | None = None) -> list[int]:
    """The examples that step (from 1) trains on, epoch after epoch. `limit`: examples of the whole run, if it ends."""
    first, end = (step - 1) * batch_size, step * batch_size
    places = range(first, end if limit is None else min(end, limit))
    return [int(epoch_order(count, seed, place // count)[place % count]) for place in places]


@dataclass(frozen=True)
class MicroBatch:
    """How much goes through the model at once: so many examples, or (unset) so many tokens."""

    examples: int | None = None
    tokens: int | None = None

    def halved(self) -> MicroBatch | None:
        """Half of it, or None where it is the smallest already."""
        if self.examples is not None:
            return MicroBatch(examples=self.examples // 2) if self.examples > 1 else None
        assert self.tokens is not None
        return MicroBatch(tokens=self.tokens // 2) if self.tokens > 1 else None

    def describe(self) -> str:
        return f"{self.examples:,} examples" if self.examples is not None else f"{self.tokens:,} tokens"

    def as_dict(self) -> dict[str, int | None]:
        return asdict(self)


def micro_batches(
    examples: Sequence[int], lengths: NDArray[np.int64], limit: MicroBatch, padded: bool
) -> list[list[int]]:
    """Cut a step's examples into micro-batches of similar lengths.

    lengths: tokens by example. An example longer than the limit makes a micro-batch of its own. `padded`: each
    example costs as much as the longest beside it.
    """
    cuts: list[list[int]] = []
    tokens = 0
    for example in sorted(examples, key=lambda each: (lengths[each], each)):
        length = int(lengths[example])
        size = len(cuts[-1]) + 1 if cuts else 1
        tokens = size * length if padded else tokens + length
        full = size > limit.examples if limit.examples is not None else tokens > (limit.tokens or 0)
        if not cuts or full:
            cuts.append([])
            tokens = length
        cuts[-1].append(example)
    return cuts
