"""No prompt on both sides of the split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.examples import Example, Message, Pair
from training.data.splits import prompt_hash, prompt_of, split
from training.errors import InputError


def chat(prompt: str, answer: str = "yes") -> list[str]:
    """The prompt of a chat of one turn."""
    turns = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
    return prompt_of(Example(messages=turns))


def test_three_percent_of_a_thousand_prompts_are_thirty() -> None:
    train, held = split([chat(str(n)) for n in range(1000)], 0.03, 0)
    assert len(train) == 970 and len(held) == 30
    assert sorted([*train, *held]) == list(range(1000))


@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=60).filter(lambda prompts: len(set(prompts)) > 1),
    st.floats(0.01, 0.5),
    st.integers(0, 1000),
)
def test_no_prompt_is_on_both_sides_and_the_fraction_is_nearly_met(
    prompts: list[int], fraction: float, seed: int
) -> None:
    train, held = split([chat(f"prompt {prompt}") for prompt in prompts], fraction, seed)
    assert not {prompts[i] for i in train} & {prompts[i] for i in held}
    assert len(train) and len(held) and len(train) + len(held) == len(prompts)
    target = max(1, round(len(prompts) * fraction))
    sizes = [prompts.count(prompt) for prompt in {prompts[i] for i in train}]
    if len(sizes) > 1:  # adding one more group would not bring it nearer
        assert all(abs(len(held) + size - target) >= abs(len(held) - target) for size in sizes)


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    examples = [chat(str(n)) for n in range(200)]
    first, again, other = (split(examples, 0.1, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again and first != other


def test_the_side_of_a_prompt_does_not_depend_on_its_place() -> None:
    examples = [chat(str(n)) for n in range(200)]
    held = {examples[i][1] for i in split(examples, 0.1, 0)[1]}
    turned = examples[::-1]
    assert held == {turned[i][1] for i in split(turned, 0.1, 0)[1]}


def test_prompts_that_differ_in_case_and_space_are_the_same() -> None:
    assert prompt_hash(chat("What  IS\nit? ")) == prompt_hash(chat("what is it?", "another answer"))
    assert prompt_hash(chat("what is it")) != prompt_hash(chat("what is it?"))


def test_the_prompt_of_a_chat_is_all_before_its_last_answer() -> None:
    begin = [("user", "A"), ("assistant", "B"), ("user", "C")]
    one, two = (
        [Message(role=role, content=content) for role, content in [*begin, ("assistant", answer), ("user", "D")]]
        for answer in "XY"
    )
    said = [part for turn in begin for part in turn]
    assert prompt_of(Example(messages=one)) == prompt_of(Example(messages=two)) == said
    assert prompt_hash(said) != prompt_hash(chat("C"))


def test_the_prompt_of_a_pair_is_all_its_turns() -> None:
    first, again, other = ("user", "A"), ("user", "A"), ("user", "Z")
    answers = [Message(role="assistant", content="X")], [Message(role="assistant", content="Y")]
    turns = [
        [Message(role=role, content=content) for role, content in [begin, ("assistant", "B"), ("user", "C")]]
        for begin in (first, again, other)
    ]
    prompts = [prompt_of(Pair(prompt, *answers)) for prompt in turns]
    assert prompts[0] == ["user", "A", "assistant", "B", "user", "C"]
    train, held = split(prompts, 0.3, 0)
    assert {0, 1} in ({*train}, {*held}) and len(train) + len(held) == 3


def test_a_text_is_its_own_prompt() -> None:
    train, held = split([prompt_of(Example(text=text)) for text in "aba"], 0.3, 0)
    assert len(held) == 1 and len(train) == 2 and 1 in held


def test_without_a_fraction_all_is_trained_on() -> None:
    train, held = split([chat("a"), chat("b")], 0, 0)
    assert train.tolist() == [0, 1] and held.dtype == np.int64 and len(held) == 0


def test_a_single_example_is_trained_on() -> None:
    assert [len(side) for side in split([chat("a")], 0.5, 0)] == [1, 0]


def test_one_prompt_alone_cannot_be_split() -> None:
    with pytest.raises(InputError, match="All 3 rows have the same prompt") as caught:
        split([chat("a", answer) for answer in "xyz"], 0.1, 0)
    assert caught.value.failure.field == "eval_fraction"
