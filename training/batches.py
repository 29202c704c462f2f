"""Which examples a step trains on, and how they are cut into what fits the device. Pure functions of (seed, step).

The order of an epoch depends on the seed and the epoch alone, so a resumed run needs no position but its step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.data.packing import fill


@lru_cache(maxsize=2)  # a step may touch two epochs
def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `count` examples in an epoch (from 0)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


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
    """Cut a step's examples into micro-batches. `lengths`: tokens, by example.

    Without padding, tokens are what counts, in any order; with it an example costs as much as the longest beside it,
    so those of similar lengths stand together. An example above the limit makes a micro-batch of its own.
    """
    order = sorted(examples, key=lambda each: (lengths[each], each))
    if limit.examples is not None:
        return [order[start : start + limit.examples] for start in range(0, len(order), limit.examples)]
    assert limit.tokens is not None
    if not padded:
        return [[order[place] for place in pack] for pack in fill([int(lengths[each]) for each in order], limit.tokens)]
    cuts: list[list[int]] = []
    for example in order:
        if not cuts or (len(cuts[-1]) + 1) * lengths[example] > limit.tokens:
            cuts.append([])
        cuts[-1].append(example)
    return cuts
