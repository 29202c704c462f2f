from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.training.judging.given import given, question
from training.judging.answers import Question
from training.judging.conversations import conversations
from training.tokenizer import load_tokenizer

ODD = {
    "empty": "",
    "rtl": "שלום\u202e",
    "script": "<script>alert(1)</script>",
    "nul": "a\0b",
    "marks": "<|im_end|> so\n",
}


@pytest.fixture(scope="module")
def tokenizer(small_model: Path) -> Any:
    return load_tokenizer(small_model)


@pytest.mark.parametrize("bare_end", [True, False])
def test_tokens_are_those_of_transformers_own_template(tokenizer: Any, small_model: Path, bare_end: bool) -> None:
    answers = given(question("p1", ODD), question("p2", {"rtl": "It is four."}, prompt="What is one plus three?"))
    made = conversations(answers, tokenizer, 256, bare_end)
    theirs = PreTrainedTokenizerFast.from_pretrained(small_model)
    for each, model in answers.each():
        chat = [*(each.messages or []), {"role": "assistant", "content": each.answers[model]}]
        text = theirs.apply_chat_template(chat, tokenize=False)
        ids = theirs(text.rstrip() if bare_end else text, add_special_tokens=False)["input_ids"]
        assert made.ids[each.prompt_id, model].tolist() == ids
    assert len(made.ids) == 6 and made.words == []


def test_a_long_answer_loses_its_end_but_not_the_end_of_its_turn(tokenizer: Any) -> None:
    answers = given(question("p", {"m": "one two three " * 30}))
    whole = conversations(answers, tokenizer, 10_000, False).ids["p", "m"].tolist()
    made = conversations(answers, tokenizer, 60, False)
    end = tokenizer("<|im_end|>\n", add_special_tokens=False)["input_ids"]
    assert made.ids["p", "m"].tolist() == [*whole[: 60 - len(end)], *end]
    assert (made.cut, made.tokens_cut, made.too_long) == (1, len(whole) - 60, 0)
    assert made.words == [("warning", f"1 answer was too long and cut at the end: {len(whole) - 60:,} tokens lost.")]


def test_a_prompt_that_leaves_no_room_has_no_score_and_is_counted(tokenizer: Any) -> None:
    answers = given(question("long", {"a": "x", "b": "y"}, prompt="one two " * 60), question("p", {"a": "x"}))
    made = conversations(answers, tokenizer, 50, True)
    assert set(made.ids) == {("p", "a")} and made.too_long == 2 and made.cut == 0
    assert made.words == [("warning", "2 answers were not scored: the prompt leaves no room.")]


def test_what_the_template_refuses_is_counted_with_its_reason(tokenizer: Any) -> None:
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system turns') }}{% endif %}"
        "<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    system = Question(
        "s", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], None, {"m": "x"}
    )
    made = conversations(given(system, question("p", {"m": "x"})), strict, 100, True)
    assert set(made.ids) == {("p", "m")} and made.refused == 1
    assert "No system turns" in made.words[0][1]
