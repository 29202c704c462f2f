"""Batches: examples laid end to end without padding, or side by side with it. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.encoding import TokenSet


@dataclass(frozen=True)
class Packed:
    """n examples end to end, T tokens. Attention must not cross the limits in `cu_seqlens`."""

    ids: NDArray[np.int64]  # (T,)
    position_ids: NDArray[np.int64]  # (T,): from 0 in each example
    cu_seqlens: NDArray[np.int32]  # (n + 1,): example i has the tokens cu_seqlens[i] to cu_seqlens[i + 1]
    scored: NDArray[np.bool_]  # (T,): this token is a target, predicted from the one before it
    longest: int  # tokens of the longest example


@dataclass(frozen=True)
class Padded:
    """n examples side by side, padded on the right to the longest one's length L."""

    ids: NDArray[np.int64]  # (n, L)
    attention_mask: NDArray[np.int64]  # (n, L): 1 where there is a token
    scored: NDArray[np.bool_]  # (n, L)


def pack(tokens: TokenSet, chosen: Sequence[int]) -> Packed:
    """Lay the chosen examples end to end, in this order. At least one must be chosen."""
    parts = [tokens[index] for index in chosen]
    lengths = np.array([len(ids) for ids, _ in parts], np.int64)
    return Packed(
        ids=np.concatenate([ids for ids, _ in parts]).astype(np.int64),
        position_ids=np.concatenate([np.arange(length) for length in lengths]),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        scored=np.concatenate([scored for _, scored in parts]),
        longest=int(lengths.max()),
    )


def pad(tokens: TokenSet, chosen: Sequence[int], pad_id: int) -> Padded:
    """Lay the chosen examples side by side, in this order. At least one must be chosen."""
    parts = [tokens[index] for index in chosen]
    shape = len(parts), max(len(ids) for ids, _ in parts)
    ids, mask, scored = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for row, (row_ids, row_scored) in enumerate(parts):
        ids[row, : len(row_ids)] = row_ids
        mask[row, : len(row_ids)] = 1
        scored[row, : len(row_ids)] = row_scored
    return Padded(ids, mask, scored)


def fill(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Share examples out into packs of at most `budget` tokens, longest first into the first pack with room.

    Gives the indices of each pack, ascending. An example above the budget has a pack of its own. First-fit
    decreasing needs at most 11/9 of the fewest packs, and one (Johnson 1973).
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((i for i, free in enumerate(room) if free >= lengths[index]), None)
        if place is None:
            packs.append([])
            room.append(budget)
            place = len(packs) - 1
        packs[place].append(index)
        room[place] -= lengths[index]
    return [sorted(pack) for pack in packs]
