"""Examples laid end to end, or side by side."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.encoding import TokenSet
from training.data.packing import Segment, fill, pack, pad, sequences_of, share
from training.data.pairs import PairSet

TOKENS = TokenSet(
    ids=np.array([11, 12, 13, 21, 31, 32], np.int32),
    scored=np.array([0, 1, 1, 0, 0, 1], np.bool_),
    offsets=np.array([0, 3, 4, 6]),
    source=np.arange(3),
)
# Prompts 10 11 and 50; the last token of the first chosen answer and the first of the second rejected one score nothing.
PAIRS = PairSet(
    ids=np.array([10, 11, 20, 21, 22, 30, 50, 60, 70, 71], np.int32),
    scored=np.array([0, 0, 1, 1, 0, 1, 0, 1, 0, 1], np.bool_),
    offsets=np.array([0, 2, 5, 6, 7, 8, 10]),
    source=np.arange(2),
)


def test_a_pack_lies_end_to_end_in_the_order_chosen() -> None:
    packed = pack([TOKENS[2], TOKENS[0]])
    assert packed.ids.tolist() == [[31, 32, 11, 12, 13]]
    assert packed.position_ids.tolist() == [[0, 1, 0, 1, 2]]
    assert packed.segments == (Segment(0, 2), Segment(2, 5))
    assert packed.targets.tolist() == [32, 12, 13] and packed.states.tolist() == [0, 2, 3]
    assert packed.ends.tolist() == [1, 4]


def test_a_padded_batch_lies_side_by_side() -> None:
    padded = pad([TOKENS[1], TOKENS[0]], pad_id=9)
    assert padded.ids.tolist() == [[21, 9, 9], [11, 12, 13]]
    assert padded.attention_mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert padded.targets.tolist() == [12, 13] and padded.states.tolist() == [3, 4]
    assert padded.ends.tolist() == [0, 5]


def test_the_prompt_of_a_pair_lies_in_the_row_once() -> None:
    shared = share(PAIRS, [1, 0])
    assert shared.ids.tolist() == [[50, 60, 70, 71, 10, 11, 20, 21, 22, 30]]
    assert shared.position_ids.tolist() == [[0, 1, 1, 2, 0, 1, 2, 3, 4, 2]]
    assert shared.segments == (
        Segment(0, 2), Segment(2, 4, prefix=(0, 1)), Segment(4, 9), Segment(9, 10, prefix=(4, 6)),
    )  # fmt: skip
    assert [each.seen for each in shared.segments] == [2, 3, 5, 3]
    assert shared.segments[1].places.tolist() == [0, 2, 3] and shared.segments[3].places.tolist() == [4, 5, 9]


def test_the_rejected_answer_goes_on_from_the_prompt_and_not_from_the_chosen_answer() -> None:
    shared = share(PAIRS, [1, 0])
    assert shared.targets.tolist() == [60, 71, 20, 21, 30]
    assert shared.states.tolist() == [0, 2, 5, 6, 5], "the prompt's last state predicts 20 and 30 both"
    assert shared.ends.tolist() == [1, 3, 8, 9]


def test_pairs_as_sequences_of_their_own_have_the_prompt_twice() -> None:
    sequences = sequences_of(PAIRS, [1, 0])
    assert [ids.tolist() for ids, _ in sequences] == [[50, 60], [50, 70, 71], [10, 11, 20, 21, 22], [10, 11, 30]]
    assert pack(sequences).targets.tolist() == share(PAIRS, [1, 0]).targets.tolist()


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 120))
def test_every_example_is_in_one_pack_within_the_budget(lengths: list[int], budget: int) -> None:
    packs = fill(lengths, budget)
    assert sorted(index for each in packs for index in each) == list(range(len(lengths)))
    for each in packs:
        assert sum(lengths[index] for index in each) <= budget or len(each) == 1


def test_the_longest_examples_are_placed_first() -> None:
    assert fill([3, 7, 2, 8], budget=10) == [[2, 3], [0, 1]]
