"""Pairs of answers to one prompt, as tokens. No torch here.

A pair lies as [prompt | chosen | rejected]: the prompt once, since both answers go on from it. The prompt is what both
token sequences have in common before the first token that is scored in either; so nothing depends on where a
tokenizer merges the end of a prompt with the beginning of an answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.formats import Message

Flaw = Literal["equal", "empty", "prompts differ"]
"""Why a pair teaches nothing: chosen and rejected say the same; one of them says nothing; they answer other prompts."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two answers to it, `chosen` the better one. The answers do not repeat the prompt."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


@dataclass(frozen=True)
class PairSet:
    """n pairs, end to end; the three parts of pair i begin at offsets[3 i], offsets[3 i + 1], offsets[3 i + 2].

    Every prompt has a token at least, and every answer one that is scored.
    """

    ids: NDArray[np.int32]  # (tokens,)
    scored: NDArray[np.bool_]  # (tokens,): of a chosen or rejected answer, and a target
    offsets: NDArray[np.int64]  # (3 n + 1,)
    source: NDArray[np.int64]  # (n,): the pair's index in what was encoded
    truncated: int = 0  # pairs of which an answer was cut at max_length
    tokens_cut: int = 0  # tokens lost by that
    too_long: int = 0  # pairs left out: their prompt leaves no room for an answer

    def __len__(self) -> int:
        return len(self.source)

    def parts(self, index: int) -> tuple[slice, slice, slice]:
        """Where the prompt, the chosen and the rejected answer of a pair lie in `ids` and `scored`."""
        a, b, c, d = self.offsets[3 * index : 3 * index + 4].tolist()
        return slice(a, b), slice(b, c), slice(c, d)

    @property
    def part_lengths(self) -> NDArray[np.int64]:
        """Tokens of prompt, chosen and rejected, (n, 3)."""
        return np.diff(self.offsets).reshape(-1, 3)

    @property
    def scored_lengths(self) -> NDArray[np.int64]:
        """Scored tokens of chosen and rejected, (n, 2)."""
        totals = np.concatenate([[0], np.cumsum(self.scored)])
        return np.diff(totals[self.offsets]).reshape(-1, 3)[:, 1:]

    def key(self, index: int) -> bytes:
        """16 bytes that two pairs share only where all tokens and their parts are the same."""
        a, b, c, d = self.offsets[3 * index : 3 * index + 4].tolist()
        digest = hashlib.blake2b(np.array([b - a, c - a], np.int64).tobytes(), digest_size=16)
        digest.update(self.ids[a:d].tobytes())
        digest.update(self.scored[a:d].tobytes())
        return digest.digest()
