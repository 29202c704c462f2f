from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.batches import MicroBatch, epoch_order, examples_of_step, micro_batches
from training.steps import examples_of_run, total_steps


def test_an_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    first, second = epoch_order(50, seed=3, epoch=0), epoch_order(50, seed=3, epoch=1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert list(first) != list(second)
    assert list(first) == list(epoch_order(50, seed=3, epoch=0))
    assert list(first) != list(epoch_order(50, seed=4, epoch=0))


def test_steps_go_through_the_epochs_without_a_gap() -> None:
    seen = [example for step in range(1, 8) for example in examples_of_step(step, count=10, batch_size=3, seed=0)]
    assert seen == [*epoch_order(10, 0, 0), *epoch_order(10, 0, 1), seen[-1]]
    assert seen[-1] == epoch_order(10, 0, 2)[0]


def test_the_last_step_of_the_epochs_has_what_is_left() -> None:
    assert total_steps(count=10, batch_size=4, epochs=1.0, max_steps=None) == 3
    assert len(examples_of_step(3, count=10, batch_size=4, seed=0, limit=10)) == 2
    assert total_steps(count=10, batch_size=4, epochs=2.5, max_steps=None) == 7
    assert total_steps(count=10, batch_size=4, epochs=0.01, max_steps=None) == 1
    assert total_steps(count=10, batch_size=4, epochs=9, max_steps=2) == 2


def test_a_small_part_of_an_epoch_is_one_example_at_least() -> None:
    assert examples_of_run(count=10, epochs=0.01) == 1
    assert examples_of_run(count=10, epochs=2.5) == 25
    assert examples_of_run(count=10, epochs=0.26) == 3


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 100), st.booleans())
def test_micro_batches_hold_each_example_once_and_no_more_tokens_than_fit(
    lengths: list[int], limit: int, padded: bool
) -> None:
    tokens = np.array(lengths)
    cuts = micro_batches(range(len(lengths)), tokens, MicroBatch(tokens=limit), padded)
    assert sorted(example for cut in cuts for example in cut) == list(range(len(lengths)))
    for cut in cuts:
        cost = len(cut) * tokens[cut].max() if padded else tokens[cut].sum()
        assert len(cut) == 1 or cost <= limit


@given(LENGTHS, st.integers(1, 9))
def test_micro_batches_of_so_many_examples(lengths: list[int], size: int) -> None:
    cuts = micro_batches(range(len(lengths)), np.array(lengths), MicroBatch(examples=size), padded=True)
    assert all(len(cut) == size for cut in cuts[:-1])
    assert sum(map(len, cuts)) == len(lengths)


def test_half_of_the_smallest_is_nothing() -> None:
    assert MicroBatch(examples=8).halved() == MicroBatch(examples=4)
    assert MicroBatch(tokens=9).halved() == MicroBatch(tokens=4)
    assert MicroBatch(examples=1).halved() is None
    assert MicroBatch(tokens=1).halved() is None
