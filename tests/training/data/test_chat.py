"""What the model must learn of a chat, for templates in the manner of well-known models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.data import templates
from tests.training.data.templates import CHATML, MODELS, tokenizer_with
from training.data.chat import ChatTemplate
from training.data.encoding import chat_template, encode_examples
from training.data.examples import Example
from training.errors import DataError


def chat(*contents: str, system: str | None = None) -> list[Any]:
    """Messages of user and assistant in turn."""
    turns = [{"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system is not None else []) + turns


def scored_text(messages: list[Any], tokenizer: Any) -> str:
    ids, scored = encode_examples([Example(messages=messages)], tokenizer, 100_000)[0]
    return tokenizer.decode(ids[scored], skip_special_tokens=False)


# Contents begin and end with a letter: where they begin with white space, it may share a token with the header.
words = st.text(st.characters(codec="utf-8", exclude_characters="<|>\0\ufdd0\ufdd1"), max_size=40).map(
    lambda text: f"a{text}z"
)


anything = st.text(st.characters(codec="utf-8", exclude_characters="\ufdd0\ufdd1"), max_size=30).filter(str.strip)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40, deadline=None)
@given(contents=st.lists(words, min_size=2, max_size=8).filter(lambda contents: len(contents) % 2 == 0))
def test_the_scored_tokens_are_the_answers_and_their_ends(name: str, contents: list[str]) -> None:
    template, eos, end, _ = MODELS[name]
    assert scored_text(chat(*contents), tokenizer_with(template, eos, "<s>")) == "".join(
        content + end for content in contents[1::2]
    )


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=30, deadline=None)
@given(contents=st.lists(anything, min_size=2, max_size=4))
def test_the_text_is_what_transformers_renders(name: str, contents: list[str]) -> None:
    template, eos, _, _ = MODELS[name]
    tokenizer = tokenizer_with(template, eos, "<s>")
    own = chat_template(tokenizer)
    expected = tokenizer.apply_chat_template(chat(*contents), tokenize=False)
    assert own.score(chat(*contents)).text == own.render(chat(*contents)) == expected
    asked = tokenizer.apply_chat_template(chat("Hi"), tokenize=False, add_generation_prompt=True)
    assert own.render(chat("Hi"), add_generation_prompt=True) == asked


@pytest.mark.parametrize("name", MODELS)
def test_white_space_around_an_answer_is_kept_as_the_template_keeps_it(name: str) -> None:
    template, eos, end, shown = MODELS[name]
    messages = chat("Hi", "  \n an answer \n ", "And?", "\tyes")
    tokenizer = tokenizer_with(template, eos, "<s>")
    scored = chat_template(tokenizer).score(messages)
    assert [scored.text[start:stop] for start, stop in scored.spans] == [
        shown("  \n an answer \n ") + end,
        shown("\tyes") + end,
    ]


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_that_repeats_its_prompt_is_scored_once_only(name: str) -> None:
    template, eos, end, _ = MODELS[name]
    assert scored_text(chat("same", "same", "same", "same"), tokenizer_with(template, eos, "<s>")) == f"same{end}" * 2


def test_the_mask_is_that_of_transformers_where_the_template_has_blocks() -> None:
    tokenizer = tokenizer_with(templates.BLOCKS.replace("<|im_end|>\n{% endg", "<|im_end|>{% endg"))
    messages = chat("Hi", "Hello, what is it?", "2 + 2", "It is 4.", system="Be brief.")
    theirs = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, scored = encode_examples([Example(messages=messages)], tokenizer, 1000)[0]
    assert ids.tolist() == theirs["input_ids"]
    assert scored.astype(int).tolist() == theirs["assistant_masks"]


def test_a_block_around_the_content_alone_is_widened_to_the_end_of_the_turn() -> None:
    template = templates.BLOCKS.replace("<|im_end|>\n{% endgeneration %}", "{% endgeneration %}<|im_end|>\n")
    assert scored_text(chat("Hi", "Hello"), tokenizer_with(template)) == "Hello<|im_end|>"


def test_the_line_break_behind_the_end_of_a_turn_is_not_scored() -> None:
    tokenizer = tokenizer_with(CHATML)
    ids, scored = encode_examples([Example(messages=chat("Hi", "Hello"))], tokenizer, 100)[0]
    assert tokenizer.decode(ids[-1:]) == "\n" and not scored[-1] and scored[-2]


def test_the_system_prompt_that_a_template_adds_is_in_the_text_and_not_scored() -> None:
    tokenizer = tokenizer_with(templates.QWEN2)
    ids, scored = encode_examples([Example(messages=chat("Hi", "Hello"))], tokenizer, 100)[0]
    assert tokenizer.decode(ids).startswith("<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user")
    assert tokenizer.decode(ids[scored]) == "Hello<|im_end|>"


def test_thinking_is_scored_where_the_template_shows_it_and_absent_where_it_takes_it_out() -> None:
    tokenizer = tokenizer_with(templates.QWEN3)
    first, last = "<think>\nOne.\n</think>\n\nYes.", "<think>\nTwo.\n</think>\n\nNo."
    assert scored_text(chat("A?", first, "B?", last), tokenizer) == f"Yes.<|im_end|>{last}<|im_end|>"


def test_the_empty_thinking_that_a_template_adds_is_scored_since_the_model_must_write_it() -> None:
    tokenizer = tokenizer_with(templates.QWEN3)
    said = scored_text(chat("A?", "Yes.", "B?", "No."), tokenizer)
    assert said == "Yes.<|im_end|><think>\n\n</think>\n\nNo.<|im_end|>"


def test_a_generation_prompt_that_history_lacks_does_no_harm() -> None:
    tokenizer = tokenizer_with(templates.R1, "</s>", "<s>")
    assert scored_text(chat("A?", "<think>Hm.</think>Yes.", "B?", "No."), tokenizer) == "Yes.</s>No.</s>"


def test_a_template_that_ends_turns_with_nothing_gets_the_end_of_text_behind_the_last() -> None:
    tokenizer = tokenizer_with(templates.ENDLESS)
    ids, scored = encode_examples([Example(messages=chat("A?", "Yes.", "B?", "No."))], tokenizer, 100)[0]
    assert tokenizer.decode(ids[scored]) == "Yes.No.<|endoftext|>"
    assert tokenizer.decode(ids).endswith("### assistant:\nNo.<|endoftext|>")


def test_an_empty_answer_among_others_is_not_scored() -> None:
    assert scored_text(chat("A?", " ", "B?", "No."), tokenizer_with(CHATML)) == "No.<|im_end|>"


def test_a_chat_that_ends_with_the_user_is_scored_up_to_the_last_answer() -> None:
    assert scored_text(chat("A?", "Yes.", "Thanks"), tokenizer_with(CHATML)) == "Yes.<|im_end|>"


def test_loss_on_all_scores_everything_but_the_first_token() -> None:
    tokenizer = tokenizer_with(CHATML)
    _, scored = encode_examples([Example(messages=chat("Hi", "Hello"))], tokenizer, 100, "all")[0]
    assert not scored[0] and scored[1:].all()


def test_bytes_of_one_character_in_several_tokens_are_all_scored() -> None:
    tokenizer = tokenizer_with(templates.ENDLESS)
    assert scored_text(chat("A?", "so 👩‍👧", "B?", "ende é"), tokenizer) == "so 👩‍👧ende é<|endoftext|>"


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        (templates.GEMMA, chat("Hi", "Hello", system="Be brief."), "System role not supported"),
        (templates.MISTRAL, chat("Hi", "Hello", system="Be brief."), "roles must alternate"),
        ("{{ messages[0].nothing.more }}", chat("Hi", "Hello"), "chat template"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", chat("hi", "ﬀ ß ŉ"), None),
        ("{% for m in messages %}{{ m.content | length }}{% endfor %}", chat("Hi", "Hello"), "rewrites"),
    ],
)
def test_a_chat_that_the_template_refuses_is_named(template: str, messages: list[Any], words: str | None) -> None:
    tokenizer = tokenizer_with(template)
    if words is None:
        assert scored_text(messages, tokenizer)
        return
    with pytest.raises(DataError, match=f"Example 2: .*{words}") as caught:
        encode_examples([Example(text="ok"), Example(messages=messages)], tokenizer, 100)
    assert caught.value.failure.hint


def test_a_broken_template_is_named() -> None:
    with pytest.raises(DataError, match="chat template cannot be read"):
        chat_template(tokenizer_with("{% for %}"))


def test_a_template_cannot_reach_the_machine() -> None:
    tokenizer = tokenizer_with("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(DataError, match="chat template"):
        encode_examples([Example(messages=chat("Hi", "Hello"))], tokenizer, 100)


def test_marks_in_the_data_are_refused() -> None:
    with pytest.raises(DataError, match=r"U\+FDD0"):
        encode_examples([Example(messages=chat("Hi", "a\ufdd0b"))], tokenizer_with(CHATML), 100)


@pytest.mark.parametrize("name", MODELS)
def test_the_end_of_a_turn_is_found(name: str) -> None:
    template, eos, end, _ = MODELS[name]
    assert chat_template(tokenizer_with(template, eos, "<s>")).turn_end() == end


def test_a_template_without_an_end_of_turn_ends_with_the_end_of_text() -> None:
    assert chat_template(tokenizer_with(templates.ENDLESS)).turn_end() == "<|endoftext|>"


def test_the_generation_prompt_ends_where_the_scored_part_begins() -> None:
    for template in (CHATML, templates.LLAMA3, templates.GEMMA, templates.QWEN2):
        own: ChatTemplate = chat_template(tokenizer_with(template, bos="<s>"))
        asked = own.render(chat("A?"), add_generation_prompt=True)
        scored = own.score(chat("A?", "Yes."))
        assert scored.text.startswith(asked) and scored.spans[0][0] == len(asked)


def strip_offsets(tokenizer: Any) -> Any:
    """As GPT-2's tokenizer has it: offsets do not count the space in front of a word."""
    from tokenizers import Tokenizer, processors

    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer._tokenizer = own
    return tokenizer


@pytest.mark.parametrize("change", [strip_offsets])
def test_trimmed_offsets_lose_no_token(change: Callable[[Any], Any]) -> None:
    tokenizer = change(tokenizer_with(CHATML))
    assert scored_text(chat("Hi", "  so  it \n is  "), tokenizer) == "  so  it \n is  <|im_end|>"
