"""Pairs as tokens: what is the prompt, what is scored, what is cut, and the same ids as TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.data import templates
from tests.training.data.templates import CHATML, MODELS, tokenizer_with
from training.data.encoding import CHUNK, TokenSet
from training.data.examples import Message, Pair, pair_flaw
from training.data.pairs import PairSet, encode_pairs
from training.errors import DataError


def turns(*contents: str, first: str = "user") -> list[Message]:
    """Messages of user and assistant in turn."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [Message(role=roles[index % 2], content=content) for index, content in enumerate(contents)]


def answer(*contents: str) -> list[Message]:
    return turns(*contents, first="assistant")


def pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(turns(prompt), answer(chosen), answer(rejected))


def encode(one: Pair, tokenizer: Any, max_length: int = 100_000) -> PairSet:
    return encode_pairs([one], tokenizer, max_length)


def texts(pairs: PairSet, tokenizer: Any, index: int = 0) -> list[str]:
    """Prompt, chosen and rejected of a pair, as text."""
    return [tokenizer.decode(pairs.ids[part]) for part in pairs.parts(index)]


def scored_texts(pairs: PairSet, tokenizer: Any, index: int = 0) -> list[str]:
    return [tokenizer.decode(pairs.ids[part][pairs.scored[part]]) for part in pairs.parts(index)]


# -- flaws ----------------------------------------------------------------------------------------------------------

FLAWS: dict[str, tuple[Pair, str | None]] = {
    "right": (pair("Hi", "Yes.", "No."), None),
    "the same": (pair("Hi", "Yes.", "Yes."), "equal"),
    "the same but for white space at the ends": (pair("Hi", " Yes.\n", "Yes."), "equal"),
    "other white space within": (pair("Hi", "Yes. No.", "Yes.\nNo."), None),
    "other case": (pair("Hi", "Yes.", "yes."), None),
    "an empty answer": (pair("Hi", "Yes.", ""), "empty"),
    "an answer of white space": (pair("Hi", " \n", "No."), "empty"),
    "two empty answers": (pair("Hi", " ", "\n"), "empty"),
    "an empty turn before a full one": (Pair(turns("Hi"), answer(" ", "Go on.", "Yes."), answer("No.")), None),
    "equal up to a turn more": (Pair(turns("Hi"), answer("Yes.", "Sure?", "Yes."), answer("Yes.")), None),
    "other questions": (Pair([], turns("Hi", "Yes."), turns("Ho", "No.")), "prompts differ"),
    "one whole chat": (Pair(turns("Hi"), turns("Ho", "Yes."), answer("No.")), "prompts differ"),
    "other questions, the same answer": (Pair([], turns("Hi", "Yes."), turns("Ho", "Yes.")), "prompts differ"),
}


@pytest.mark.parametrize("case", FLAWS)
def test_a_pair_with_nothing_to_learn_is_known(case: str) -> None:
    one, flaw = FLAWS[case]
    assert pair_flaw(one) == flaw


# -- what the prompt is, and what is scored -------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_characters="<|>\0\ufdd0\ufdd1"), max_size=30).map(
    lambda text: f"a{text}z"
)
anything = st.text(st.characters(codec="utf-8", exclude_characters="\ufdd0\ufdd1"), max_size=20).filter(str.strip)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40, deadline=None)
@given(
    prompt=st.lists(words, min_size=1, max_size=5).filter(lambda prompt: len(prompt) % 2 == 1),
    said=st.tuples(words, words),
)
def test_the_scored_tokens_are_the_answers_and_their_ends(name: str, prompt: list[str], said: tuple[str, str]) -> None:
    template, eos, end, _ = MODELS[name]
    tokenizer = tokenizer_with(template, eos, "<s>")
    pairs = encode(Pair(turns(*prompt), answer(said[0]), answer(said[1])), tokenizer)
    assert scored_texts(pairs, tokenizer) == ["", said[0] + end, said[1] + end]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40, deadline=None)
@given(
    prompt=st.lists(anything, min_size=1, max_size=3).filter(lambda prompt: len(prompt) % 2 == 1),
    said=st.tuples(anything, anything),
)
def test_prompt_and_answer_together_are_the_tokens_of_the_whole_chat(
    name: str, prompt: list[str], said: tuple[str, str]
) -> None:
    template, eos, end, shown = MODELS[name]
    tokenizer = tokenizer_with(template, eos, "<s>")
    pairs = encode(Pair(turns(*prompt), answer(said[0]), answer(said[1])), tokenizer)
    sequences = pairs.as_sequences()
    assert len(sequences) == 2 and sequences.source.tolist() == [0, 0]
    for index, content in enumerate(said):
        ids, scored = sequences[index]
        whole = tokenizer.apply_chat_template(turns(*prompt) + answer(content), tokenize=False)
        assert ids.tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]
        prompt_part, *answers = pairs.parts(0)
        assert ids.tolist() == [*pairs.ids[prompt_part], *pairs.ids[answers[index]]]
        assert scored.tolist() == [*pairs.scored[prompt_part], *pairs.scored[answers[index]]]
        assert tokenizer.decode(ids[scored]).endswith(shown(content) + end)
    assert len(pairs.ids[prompt_part]) > 0 and not pairs.scored[prompt_part].any()


def test_the_answers_of_earlier_turns_are_prompt_and_not_scored() -> None:
    tokenizer = tokenizer_with(CHATML)
    one = Pair(turns("A?", "Yes.", "B?"), answer("Never."), answer("No."))
    assert texts(encode(one, tokenizer), tokenizer) == [
        "<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nB?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "Never.<|im_end|>\n",
        "No.<|im_end|>\n",
    ]
    assert scored_texts(encode(one, tokenizer), tokenizer) == ["", "Never.<|im_end|>", "No.<|im_end|>"]


def test_an_earlier_answer_that_says_the_same_as_the_chosen_one_is_not_scored() -> None:
    for template, eos, end, _ in MODELS.values():
        tokenizer = tokenizer_with(template, eos, "<s>")
        pairs = encode(Pair(turns("same", "same", "same"), answer("same"), answer("other")), tokenizer)
        assert scored_texts(pairs, tokenizer) == ["", f"same{end}", f"other{end}"]


@pytest.mark.parametrize("name", MODELS)
def test_every_assistant_turn_of_an_answer_is_scored_and_no_other(name: str) -> None:
    template, eos, end, _ = MODELS[name]
    tokenizer = tokenizer_with(template, eos, "<s>")
    pairs = encode(Pair(turns("A?"), answer("Yes.", "B?", "Never."), answer("No.")), tokenizer)
    assert scored_texts(pairs, tokenizer) == ["", f"Yes.{end}Never.{end}", f"No.{end}"]


def test_tokens_that_both_answers_begin_with_are_not_of_the_prompt() -> None:
    tokenizer = tokenizer_with(CHATML)
    prompt, chosen, rejected = texts(encode(pair("Hi", "It is 4.", "It is 5."), tokenizer), tokenizer)
    assert prompt.endswith("<|im_start|>assistant\n") and chosen.startswith("It is") and rejected.startswith("It is")


LINES = (
    "{% for m in messages %}{{ m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)


def test_a_token_that_the_end_of_the_prompt_and_the_beginning_of_an_answer_share_is_the_answers() -> None:
    tokenizer = tokenizer_with(LINES)
    assert len(tokenizer("\n\n", add_special_tokens=False)["input_ids"]) == 1
    one = pair("Hi", "\n\nYes.", "No.")
    pairs = encode(one, tokenizer)
    assert texts(pairs, tokenizer) == ["user\nHi<|im_end|>assistant", "\n\n\nYes.<|im_end|>", "\nNo.<|im_end|>"]
    assert scored_texts(pairs, tokenizer) == ["", "\n\n\nYes.<|im_end|>", "No.<|im_end|>"]


def test_a_token_that_both_answers_share_with_the_prompt_is_in_both() -> None:
    tokenizer = tokenizer_with(LINES)
    pairs = encode(pair("Hi", "\n\nYes.", "\n\nNo."), tokenizer)
    assert texts(pairs, tokenizer) == ["user\nHi<|im_end|>assistant", "\n\n\nYes.<|im_end|>", "\n\n\nNo.<|im_end|>"]
    assert scored_texts(pairs, tokenizer) == ["", "\n\n\nYes.<|im_end|>", "\n\n\nNo.<|im_end|>"]


def test_thinking_that_the_template_takes_out_of_earlier_turns_is_in_neither_part() -> None:
    tokenizer = tokenizer_with(templates.QWEN3)
    one = Pair(
        turns("A?", "<think>\nOne.\n</think>\n\nYes.", "B?"), answer("No."), answer("<think>\nTwo.\n</think>\n\nYes.")
    )
    pairs = encode(one, tokenizer)
    assert "One." not in texts(pairs, tokenizer)[0]
    assert scored_texts(pairs, tokenizer) == [
        "", "<think>\n\n</think>\n\nNo.<|im_end|>", "<think>\nTwo.\n</think>\n\nYes.<|im_end|>"
    ]  # fmt: skip


def test_a_template_that_ends_turns_with_nothing_gets_the_end_of_text_behind_both_answers() -> None:
    tokenizer = tokenizer_with(templates.ENDLESS)
    pairs = encode(Pair(turns("A?", "Yes.", "B?"), answer("No."), answer("Never.")), tokenizer)
    assert scored_texts(pairs, tokenizer) == ["", "No.<|endoftext|>", "Never.<|endoftext|>"]


def test_a_template_that_writes_nothing_before_the_answers_is_named() -> None:
    tokenizer = tokenizer_with("{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}")
    with pytest.raises(DataError, match=r"Pair 1 .*nothing is left of the prompt") as caught:
        encode(pair("Hi", "Yes", "No"), tokenizer)
    assert caught.value.failure.hint


def test_a_pair_that_the_template_refuses_is_named_by_its_number_and_its_words() -> None:
    tokenizer = tokenizer_with(templates.GEMMA)
    bad = Pair([Message(role="system", content="Be brief."), *turns("What is it?")], answer("Yes."), answer("No."))
    pairs = [pair("Hi", "Yes.", "No."), pair("Ho", "Yes.", "No."), bad]
    with pytest.raises(DataError, match=r"Pair 3 .“What is it.”.: .*System role not supported"):
        encode_pairs(pairs, tokenizer, 100)
    with pytest.raises(DataError, match="Pair 3 "):
        encode_pairs(pairs, tokenizer, 100, which=[2])


# -- what is cut ------------------------------------------------------------------------------------------------------


def test_answers_are_cut_at_the_end_and_what_is_lost_is_counted() -> None:
    tokenizer = tokenizer_with(CHATML)
    one = pair("Hi", "It is 4. The capital is Paris.", "It is 4.")
    whole = encode(one, tokenizer)
    prompt, chosen, rejected = whole.part_lengths[0].tolist()
    assert (whole.truncated, whole.tokens_cut, whole.too_long) == (0, 0, 0)
    cut = encode(one, tokenizer, prompt + chosen - 3)
    assert cut.part_lengths.tolist() == [[prompt, chosen - 3, rejected]]
    assert (cut.truncated, cut.tokens_cut, cut.too_long) == (1, 3, 0)
    assert cut.ids[cut.parts(0)[1]].tolist() == whole.ids[whole.parts(0)[1]][:-3].tolist()
    shortest = encode(one, tokenizer, prompt + 1)
    assert shortest.part_lengths.tolist() == [[prompt, 1, 1]] and shortest.truncated == 1
    assert shortest.tokens_cut == chosen + rejected - 2 and shortest.scored_lengths.tolist() == [[1, 1]]


def test_a_pair_whose_prompt_leaves_no_room_is_left_out_and_counted() -> None:
    tokenizer = tokenizer_with(CHATML)
    short, long = pair("Hi", "Yes.", "No."), pair("What is it? " * 20, "Yes.", "No.")
    prompt = int(encode(long, tokenizer).part_lengths[0, 0])
    pairs = encode_pairs([long, short, long], tokenizer, prompt)
    assert len(pairs) == 1 and pairs.too_long == 2 and pairs.source.tolist() == [1]
    assert pairs.truncated == pairs.tokens_cut == 0
    assert encode(long, tokenizer, prompt + 1).too_long == 0


def test_pairs_keep_their_order_and_their_indices_over_chunks() -> None:
    tokenizer, seen = tokenizer_with(CHATML), []
    all_pairs = [pair(f"What is {n}?", f"It is {n}.", "No.") for n in range(CHUNK + 30)]
    which = list(range(0, CHUNK + 30, 1))[::-1][: CHUNK + 5]
    pairs = encode_pairs(all_pairs, tokenizer, 100, lambda done, total: seen.append((done, total)), which)
    assert seen == [(CHUNK, CHUNK + 5), (CHUNK + 5, CHUNK + 5)] and pairs.source.tolist() == which
    for place in (0, CHUNK - 1, CHUNK, CHUNK + 4):
        prompt, chosen, _ = texts(pairs, tokenizer, place)
        assert f"What is {which[place]}?" in prompt and chosen == f"It is {which[place]}.<|im_end|>\n"


def test_no_pairs_make_an_empty_set() -> None:
    pairs = encode_pairs([], tokenizer_with(CHATML), 100)
    assert len(pairs) == 0 and pairs.part_lengths.shape == (0, 3) and len(pairs.as_sequences()) == 0


# -- the set ----------------------------------------------------------------------------------------------------------


def small_set() -> PairSet:
    """Two pairs: [1 2 | 3 4 | 5] and [6 | 7 | 8 9]; all of the answers is scored but token 3."""
    return PairSet(
        ids=np.arange(1, 10, dtype=np.int32),
        scored=np.array([0, 0, 0, 1, 1, 0, 1, 1, 1], np.bool_),
        offsets=np.array([0, 2, 4, 5, 6, 7, 9]),
        source=np.array([4, 7]),
        truncated=3, tokens_cut=20, too_long=1,
    )  # fmt: skip


def test_a_pair_makes_two_sequences_chosen_first() -> None:
    sequences = small_set().as_sequences()
    assert isinstance(sequences, TokenSet) and sequences.source.tolist() == [4, 4, 7, 7]
    assert [sequences[index][0].tolist() for index in range(4)] == [[1, 2, 3, 4], [1, 2, 5], [6, 7], [6, 8, 9]]
    assert [sequences[index][1].tolist() for index in range(4)] == [
        [False, False, False, True], [False, False, True], [False, True], [False, True, True]
    ]  # fmt: skip
    assert sequences.ids.dtype == np.int32 and sequences.offsets.dtype == np.int64


def test_lengths_are_counted_part_by_part() -> None:
    assert small_set().part_lengths.tolist() == [[2, 2, 1], [1, 1, 2]]
    assert small_set().scored_lengths.tolist() == [[1, 1], [1, 2]]


def test_pairs_are_saved_and_loaded(tmp_path: Path) -> None:
    pairs = small_set()
    pairs.save(tmp_path / "pairs.npz")
    again = PairSet.load(tmp_path / "pairs.npz")
    for name in ("ids", "scored", "offsets", "source"):
        saved, loaded = getattr(pairs, name), getattr(again, name)
        assert saved.dtype == loaded.dtype and np.array_equal(saved, loaded)
    assert (again.truncated, again.tokens_cut, again.too_long) == (3, 20, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.npz"]


def test_a_file_of_examples_is_no_file_of_pairs(tmp_path: Path) -> None:
    small_set().as_sequences().save(tmp_path / "tokens.npz")
    with pytest.raises(ValueError, match=r"tokens\.npz is damaged"):
        PairSet.load(tmp_path / "tokens.npz")


# -- against TRL ------------------------------------------------------------------------------------------------------

ROWS = [
    pair("Hi", "Hello.", "No."),
    Pair(
        turns("What is 2 + 2?", "It is 4.", "Thanks! And the capital of France?"), answer("Paris."), answer("It is 4.")
    ),
    Pair([Message(role="system", content="Be brief."), *turns("Hi")], answer("Yo"), answer("Yolo, hello")),
    pair("Hi", "\nHello.", "No."),
    pair("Hi", "\n\nHello.", "\n\nNo."),
    pair("Hi", " Hello.", "\tNo. "),
    pair("Hi", "It is 4.", "It is 5."),
    pair("naïve 東京 👩‍👧", "é 👩‍👧", "👩"),
    Pair(turns("A?"), answer("Yes.", "B?", "No."), answer("No.")),
]


def test_the_ids_are_those_of_trl() -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = tokenizer_with(CHATML)
    rows = Dataset.from_list([{"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected} for row in ROWS])
    trainer = DPOTrainer.__new__(DPOTrainer)
    trainer._is_vision_dataset = False
    theirs = trainer._prepare_dataset(
        rows, tokenizer, DPOConfig(output_dir="unused", max_length=None, use_cpu=True, report_to=[]), "train"
    )
    ours = encode_pairs(ROWS, tokenizer, 100_000)
    assert len(theirs) == len(ours) == len(ROWS)
    for index, row in enumerate(theirs):
        prompt, chosen, rejected = (ours.ids[part].tolist() for part in ours.parts(index))
        assert (prompt, chosen, rejected) == (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"])
