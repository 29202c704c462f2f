"""Tokenizers keep their ids over saving and loading, and stop where training taught them to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.training.data import templates
from tests.training.data.templates import TEXT, tokenizer_with
from training.data.encoding import encode_examples
from training.data.examples import Example
from training.errors import ModelError
from training.tokenizer import (
    END_OF_TEXT,
    SAMPLES,
    TURN_END,
    _first_characters,
    load_tokenizer,
    reload_warnings,
    save_tokenizer,
    stop_ids,
    train_tokenizer,
)

TEXTS = [*TEXT, "In 2024 there were 2024 of 2024.", "Sie hörten naïve Töne."]


def own_bpe(specials: list[str]) -> Tokenizer:
    """A tokenizer of somebody's own: byte-level BPE that keeps numbers whole, unlike Qwen2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def save_custom(folder: Path, specials: list[str], **options: Any) -> Path:
    """What a person has who saved their own tokenizer beside a Qwen2 model with transformers."""
    PreTrainedTokenizerFast(tokenizer_object=own_bpe(specials), **options).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}))
    return folder


def test_a_custom_tokenizer_beside_a_qwen2_config_keeps_its_ids(tmp_path: Path) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    file = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    sample = "In 2024 there were 2024."
    assert AutoTokenizer.from_pretrained(tmp_path).encode(sample) != file.encode(sample).ids  # the trap
    loaded = load_tokenizer(tmp_path)
    for text in (*SAMPLES, sample):
        assert loaded.encode(text, add_special_tokens=False) == file.encode(text, add_special_tokens=False).ids


def test_a_tokenizer_that_others_would_misread_is_told(tmp_path: Path) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    [warning] = reload_warnings(tmp_path)
    assert "takes this model's tokenizer for a Qwen2Tokenizer" in warning and "PreTrainedTokenizerFast" in warning


def test_a_tokenizer_that_others_read_rightly_is_not_told(tmp_path: Path) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_neox"}))
    assert reload_warnings(tmp_path) == []


def test_a_config_that_contradicts_tokenizer_json_is_refused(tmp_path: Path) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    path = tmp_path / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["added_tokens_decoder"] = {"5000": {"content": "fox", "special": False, "normalized": False,
                                                "lstrip": False, "rstrip": False, "single_word": False}}  # fmt: skip
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="as another tokenizer: “The quick"):
        load_tokenizer(tmp_path)


def test_a_saved_tokenizer_is_the_same_again(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 400)
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    assert [again.encode(text) for text in SAMPLES] == [tokenizer.encode(text) for text in SAMPLES]
    assert again.chat_template == tokenizer.chat_template and stop_ids(again) == stop_ids(tokenizer)
    assert again.eos_token == tokenizer.eos_token and again.pad_token == tokenizer.pad_token


def test_a_trained_tokenizer_is_deterministic_and_keeps_numbers_whole() -> None:
    first, second = train_tokenizer(TEXTS, 400), train_tokenizer(TEXTS, 400)
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert "Ġ2024" in first.get_vocab() and len(first) <= 400


@pytest.mark.parametrize("text", SAMPLES)
def test_a_trained_tokenizer_can_write_every_text(text: str) -> None:
    tokenizer = train_tokenizer(["ab"], 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_is_trained_on_the_beginning_of_very_many_texts() -> None:
    assert list(_first_characters(["abc", "def", "ghi"], 5)) == ["abc", "de"]
    assert list(_first_characters(["abc", "def"], 6)) == ["abc", "def"]


def test_chatml_ends_turns_with_its_token_where_the_vocabulary_has_it(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_custom(tmp_path, [END_OF_TEXT, "<|im_start|>", TURN_END], eos_token=END_OF_TEXT))
    example = Example(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    ids, scored = encode_examples([example], tokenizer, 100)[0]
    assert tokenizer.decode(ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    assert tokenizer.decode(ids[scored]) == "Hello<|im_end|>"
    assert tokenizer.convert_ids_to_tokens(stop_ids(tokenizer)) == [TURN_END, END_OF_TEXT]


def test_chatml_ends_turns_with_the_end_of_text_where_the_vocabulary_lacks_its_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_custom(tmp_path, ["</s>"], eos_token="</s>"))
    size = len(tokenizer)
    example = Example(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    ids, scored = encode_examples([example], tokenizer, 100)[0]
    assert tokenizer.decode(ids) == "<|im_start|>user\nHi</s>\n<|im_start|>assistant\nHello</s>\n"
    assert tokenizer.decode(ids[scored]) == "Hello</s>"
    assert stop_ids(tokenizer) == [tokenizer.eos_token_id] and len(tokenizer) == size and ids.max() < size


def test_generation_stops_at_the_end_of_a_turn_and_at_the_end_of_text() -> None:
    tokenizer = tokenizer_with(templates.QWEN2)  # as Qwen2.5's base models: their end of text is another token
    assert tokenizer.convert_ids_to_tokens(stop_ids(tokenizer)) == [TURN_END, END_OF_TEXT]
    tokenizer = tokenizer_with(templates.GEMMA)
    assert tokenizer.convert_ids_to_tokens(stop_ids(tokenizer)) == ["<end_of_turn>", END_OF_TEXT]


def test_a_missing_padding_token_is_the_end_of_text(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_custom(tmp_path, ["</s>"], eos_token="</s>"))
    assert tokenizer.pad_token == "</s>"
    tokenizer = load_tokenizer(save_custom(tmp_path, ["</s>", "<pad>"], eos_token="</s>", pad_token="<pad>"))
    assert tokenizer.pad_token == "<pad>"


def test_a_usual_end_of_text_token_is_found_where_none_is_named(tmp_path: Path) -> None:
    assert load_tokenizer(save_custom(tmp_path, [END_OF_TEXT])).eos_token == END_OF_TEXT


def test_a_tokenizer_without_any_end_of_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no end-of-text token"):
        load_tokenizer(save_custom(tmp_path, ["<x>"]))


@pytest.mark.parametrize("content", ["", "{}", "nonsense"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"The tokenizer in .* cannot be loaded") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in caught.value.failure.message and "tokenizer.json" in caught.value.failure.hint


def test_no_tokenizer_is_made_up_where_there_is_none(tmp_path: Path) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_of_vocabulary_and_merges_alone_is_read(tmp_path: Path) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    content = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(content["vocab"]))
    merges = [" ".join(merge) for merge in content["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == content["vocab"] and loaded.decode(loaded.encode("It is Paris.")) == "It is Paris."


def test_one_of_several_templates_is_chosen(tmp_path: Path) -> None:
    save_custom(tmp_path, [END_OF_TEXT], eos_token=END_OF_TEXT)
    path = tmp_path / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["chat_template"] = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    path.write_text(json.dumps(content))
    assert load_tokenizer(tmp_path).chat_template == "A"
