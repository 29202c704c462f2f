"""Examples laid end to end, or side by side."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.encoding import TokenSet
from training.data.packing import fill, pack, pad

TOKENS = TokenSet(
    ids=np.array([11, 12, 13, 21, 31, 32], np.int32),
    scored=np.array([0, 1, 1, 0, 0, 1], np.bool_),
    offsets=np.array([0, 3, 4, 6]),
    source=np.arange(3),
)


def test_a_pack_lies_end_to_end_in_the_order_chosen() -> None:
    packed = pack(TOKENS, [2, 0])
    assert packed.ids.tolist() == [31, 32, 11, 12, 13]
    assert packed.position_ids.tolist() == [0, 1, 0, 1, 2]
    assert packed.cu_seqlens.tolist() == [0, 2, 5] and packed.cu_seqlens.dtype == np.int32
    assert packed.scored.tolist() == [False, True, False, True, True] and packed.longest == 3


def test_a_padded_batch_lies_side_by_side() -> None:
    padded = pad(TOKENS, [1, 0], pad_id=9)
    assert padded.ids.tolist() == [[21, 9, 9], [11, 12, 13]]
    assert padded.attention_mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert padded.scored.tolist() == [[False, False, False], [False, True, True]]


def test_both_score_the_same_tokens() -> None:
    packed, padded = pack(TOKENS, [0, 1, 2]), pad(TOKENS, [0, 1, 2], 0)
    assert packed.ids[packed.scored].tolist() == padded.ids[padded.scored].tolist() == [12, 13, 32]


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 120))
def test_every_example_is_in_one_pack_within_the_budget(lengths: list[int], budget: int) -> None:
    packs = fill(lengths, budget)
    assert sorted(index for each in packs for index in each) == list(range(len(lengths)))
    for each in packs:
        assert sum(lengths[index] for index in each) <= budget or len(each) == 1


def test_the_longest_examples_are_placed_first() -> None:
    assert fill([3, 7, 2, 8], budget=10) == [[2, 3], [0, 1]]
