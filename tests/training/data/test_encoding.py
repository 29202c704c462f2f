"""Examples as tokens: cut, counted, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from tests.training.data.templates import tokenizer_with
from training.data.encoding import CHUNK, TokenSet, encode_examples
from training.data.examples import Example
from training.tokenizer import chatml


def tokenizer(**options: Any) -> Any:
    made = tokenizer_with(None, **options)
    made.chat_template = chatml(made)
    return made


def chat(question: str, answer: str) -> Example:
    return Example(messages=[{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def test_a_text_is_scored_to_its_end_but_for_its_first_token() -> None:
    own = tokenizer()
    ids, scored = encode_examples([Example(text="It is 4.")], own, 100)[0]
    assert own.decode(ids) == "It is 4.<|endoftext|>"
    assert not scored[0] and scored[1:].all()


def test_a_text_begins_with_the_token_that_its_model_begins_with() -> None:
    own = tokenizer(bos="<s>")
    template = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", own.bos_token_id)])
    plain = own.backend_tokenizer
    before = plain.post_processor
    plain.post_processor = template
    try:
        ids, _ = encode_examples([Example(text="It is 4.")], own, 100)[0]
        assert own.decode(ids) == "<s>It is 4.<|endoftext|>"
        ids, _ = encode_examples([chat("Hi", "Yo")], own, 100)[0]
        assert own.decode(ids).startswith("<|im_start|>user")
    finally:
        plain.post_processor = before


def test_an_end_of_text_that_the_tokenizer_writes_is_not_doubled() -> None:
    own = tokenizer()
    ids, _ = encode_examples([Example(text="It is 4.<|endoftext|>")], own, 100)[0]
    assert own.decode(ids) == "It is 4.<|endoftext|>"


def test_what_is_cut_is_counted() -> None:
    own = tokenizer()
    examples = [chat("Hi", "It is 4. The capital is Paris."), chat("Hi", "Yo")]
    whole = encode_examples(examples, own, 1000)
    long, short = whole.lengths
    cut = encode_examples(examples, own, int(long) - 3)
    assert cut.truncated == 1 and cut.tokens_cut == 3 and cut.lengths.tolist() == [long - 3, short]
    assert cut[0][0].tolist() == whole[0][0][:-3].tolist() and cut[0][1].tolist() == whole[0][1][:-3].tolist()
    assert whole.truncated == whole.tokens_cut == whole.empty == 0


def test_an_example_of_which_nothing_scored_remains_is_left_out_and_counted() -> None:
    examples = [chat("What is it? " * 30, "Yo"), Example(text=""), chat("Hi", "Yo")]
    tokens = encode_examples(examples, tokenizer(), 30)
    assert tokens.empty == 2 and tokens.truncated == 1 and tokens.source.tolist() == [2] and len(tokens) == 1


def test_chats_and_texts_keep_their_order_over_chunks() -> None:
    examples = [Example(text=f"It is {n}.") if n % 3 else chat("Hi", f"It is {n}.") for n in range(CHUNK + 20)]
    own, seen = tokenizer(), []
    tokens = encode_examples(examples, own, 100, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(CHUNK, CHUNK + 20), (CHUNK + 20, CHUNK + 20)]
    assert tokens.source.tolist() == list(range(CHUNK + 20))
    for index in (0, 1, CHUNK, CHUNK + 19):
        assert f"It is {index}." in own.decode(tokens[index][0])


def test_no_examples_make_an_empty_set() -> None:
    tokens = encode_examples([], tokenizer(), 100)
    assert len(tokens) == 0 and tokens.offsets.tolist() == [0]


def test_truncation_and_padding_that_a_tokenizer_carries_are_turned_off() -> None:
    own = tokenizer()
    own.backend_tokenizer.enable_truncation(4)
    own.backend_tokenizer.enable_padding(length=64)
    ids, _ = encode_examples([chat("Hi", "It is 4.")], own, 100)[0]
    assert own.decode(ids).endswith("It is 4.<|im_end|>\n")


def test_tokens_are_saved_and_loaded(tmp_path: Path) -> None:
    tokens = encode_examples([chat("What is it? " * 30, "Yo"), chat("Hi", "It is 4.")], tokenizer(), 20)
    tokens.save(tmp_path / "tokens.npz")
    again = TokenSet.load(tmp_path / "tokens.npz")
    for name in ("ids", "scored", "offsets", "source"):
        saved, loaded = getattr(tokens, name), getattr(again, name)
        assert saved.dtype == loaded.dtype and np.array_equal(saved, loaded)
    assert (again.truncated, again.tokens_cut, again.empty) == (tokens.truncated, tokens.tokens_cut, tokens.empty)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense"])
def test_a_damaged_file_of_tokens_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokens.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokens\.npz"):
        TokenSet.load(tmp_path / "tokens.npz")
