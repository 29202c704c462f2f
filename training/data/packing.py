"""Batches: sequences laid end to end without padding, or side by side with it. No torch here.

Two sequences that begin the same way can share that beginning: it lies in the row once, and the second sequence's own
tokens lie behind the first's, in a segment of their own that sees the shared beginning too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training.data.pairs import PairSet

Tokens = tuple[NDArray[np.int32], NDArray[np.bool_]]
"""Tokens of one sequence, and which of them are scored: (t,) each. The first is never scored."""


@dataclass(frozen=True)
class Segment:
    """Tokens start to end of a row. Each sees the row's tokens of `prefix` (from, to), then its segment up to itself.

    Together they are one sequence: the segment's first token comes behind the prefix's last.
    """

    start: int
    end: int
    prefix: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def seen(self) -> int:
        """Tokens that the last token sees, itself among them: the length of the sequence."""
        return self.prefix[1] - self.prefix[0] + len(self)

    @property
    def places(self) -> NDArray[np.int64]:
        """Where the sequence's tokens lie in the row, (seen,)."""
        return np.concatenate([np.arange(*self.prefix), np.arange(self.start, self.end)])


@dataclass(frozen=True)
class Packed:
    """Sequences end to end in one row of T tokens, N of them scored. The segments fill the row, in its order."""

    ids: NDArray[np.int64]  # (1, T)
    position_ids: NDArray[np.int64]  # (1, T): from 0 in each sequence
    segments: tuple[Segment, ...]
    targets: NDArray[np.int64]  # (N,): the scored tokens
    states: NDArray[np.int64]  # (N,): the place whose state predicts each of them
    ends: NDArray[np.int64]  # (sequences,): the place of each sequence's last token


@dataclass(frozen=True)
class Padded:
    """n sequences side by side, padded on the right to the longest one's length L. Places count row after row."""

    ids: NDArray[np.int64]  # (n, L)
    attention_mask: NDArray[np.int64]  # (n, L): 1 where there is a token
    targets: NDArray[np.int64]  # (N,)
    states: NDArray[np.int64]  # (N,)
    ends: NDArray[np.int64]  # (n,)


def pack(examples: Sequence[Tokens]) -> Packed:
    """Lay examples end to end, in this order. At least one must be given."""
    limits = np.cumsum([0, *(len(ids) for ids, _ in examples)]).tolist()
    return _row(
        np.concatenate([ids for ids, _ in examples]),
        np.concatenate([scored for _, scored in examples]),
        tuple(Segment(start, end) for start, end in pairwise(limits)),
    )


def share(pairs: PairSet, chosen: Sequence[int]) -> Packed:
    """Lay the chosen pairs end to end, each prompt once: [prompt | chosen | rejected]. At least one must be chosen.

    The sequences are prompt and chosen answer, prompt and rejected answer, pair after pair.
    """
    segments: list[Segment] = []
    at = 0
    for prompt, better, worse in pairs.part_lengths[list(chosen)].tolist():
        middle, end = at + prompt + better, at + prompt + better + worse
        segments += [Segment(at, middle), Segment(middle, end, prefix=(at, at + prompt))]
        at = end
    whole = [slice(pairs.parts(index)[0].start, pairs.parts(index)[2].stop) for index in chosen]
    return _row(
        np.concatenate([pairs.ids[each] for each in whole]),
        np.concatenate([pairs.scored[each] for each in whole]),
        tuple(segments),
    )


def sequences_of(pairs: PairSet, chosen: Sequence[int]) -> list[Tokens]:
    """The chosen pairs as sequences that share nothing: prompt and chosen, prompt and rejected, pair after pair."""
    return [
        (np.concatenate([pairs.ids[prompt], pairs.ids[answer]]), np.concatenate([pairs.scored[prompt], pairs.scored[answer]]))
        for prompt, *answers in map(pairs.parts, chosen)
        for answer in answers
    ]  # fmt: skip


def _row(ids: NDArray[np.int32], scored: NDArray[np.bool_], segments: tuple[Segment, ...]) -> Packed:
    before = np.arange(-1, len(ids) - 1)  # the place before each token in its sequence
    for segment in segments:
        if segment.seen > len(segment):
            before[segment.start] = segment.prefix[1] - 1
    return Packed(
        ids=ids.astype(np.int64)[None],
        position_ids=np.concatenate([np.arange(each.seen - len(each), each.seen) for each in segments])[None],
        segments=segments,
        targets=ids[scored].astype(np.int64),
        states=before[scored],
        ends=np.array([each.end - 1 for each in segments]),
    )


def pad(examples: Sequence[Tokens], pad_id: int) -> Padded:
    """Lay examples side by side, in this order. At least one must be given."""
    lengths = np.array([len(ids) for ids, _ in examples])
    shape = len(examples), int(lengths.max())
    ids, mask, scored = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for row, (row_ids, row_scored) in enumerate(examples):
        ids[row, : len(row_ids)] = row_ids
        mask[row, : len(row_ids)] = 1
        scored[row, : len(row_ids)] = row_scored
    return Padded(ids, mask, ids[scored], np.flatnonzero(scored) - 1, np.arange(len(examples)) * shape[1] + lengths - 1)


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
