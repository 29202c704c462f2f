"""Which token comes next: the likeliest, or one that is drawn.

What is drawn is decided by numbers that belong to the prompt, not to the batch: whatever stands beside it, whatever
was answered already, the same prompt, model and seed give the same answer (but for rounding).

Shapes: R rows, V words of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. temperature 0: always the likeliest. `seed`: of all that is drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()
FEW = 1024  # of the likeliest tokens, that are looked at first
BELOW_ONE = 1 - 1e-6  # so that rounding never reaches the end of what may be drawn


class Chooser:
    """Chooses the tokens of a batch's answers. `prompts`: token ids; `most`: tokens of the longest answer."""

    def __init__(self, sampling: Sampling, prompts: Sequence[Sequence[int]], most: int, device: torch.device) -> None:
        self._sampling = sampling
        if sampling.temperature:
            numbers = np.stack([_numbers(sampling.seed, prompt, most) for prompt in prompts])
            self._numbers = torch.from_numpy(numbers).to(device)  # (prompts, most)

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """Token number `step` (from 0) of these rows of the batch, (R,). logits (R, V)."""
        if not self._sampling.temperature:
            return logits.argmax(-1)
        return draw(logits, self._sampling.temperature, self._sampling.top_p, self._numbers[list(rows), step])


def _numbers(seed: int, prompt: Sequence[int], count: int) -> NDArray[np.float32]:
    """Numbers in [0, 1) of a prompt's own, (count,)."""
    digest = hashlib.blake2b(np.array(prompt, np.int64).tobytes(), digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest)]).random(count, np.float32)


def draw(logits: Tensor, temperature: float, top_p: float, numbers: Tensor) -> Tensor:
    """A token of each row, (R,): the one at the place `numbers` (R,), in [0, 1), of what may be drawn.

    logits (R, V). p = softmax(logits / temperature); of it, the likeliest tokens up to the one with which they make up
    top_p (Holtzman et al. 2020, nucleus sampling), laid end to end.
    """
    likely = torch.softmax(logits.float() / temperature, -1)
    tokens = None
    if top_p < 1:
        likely, tokens = _likeliest(likely, top_p)
        likely = likely.where(likely.cumsum(-1) - likely < top_p, 0.0)
    ends = likely.cumsum(-1)
    places = torch.searchsorted(ends, (numbers * BELOW_ONE)[:, None] * ends[:, -1:], right=True)
    places = places.clamp(max=ends.shape[-1] - 1)
    return (places if tokens is None else tokens.gather(-1, places))[:, 0]


def _likeliest(likely: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Probabilities and tokens, the likeliest first, enough of them for top_p: to sort all words would take longer."""
    first = likely.topk(min(FEW, likely.shape[-1]))
    if bool((first.values.sum(-1) >= top_p).all()):
        return first.values, first.indices
    every = likely.sort(-1, descending=True)
    return every.values, every.indices
