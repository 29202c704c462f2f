"""A model's folder is judged before any weight is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models
from transformers import Qwen2Config, Qwen2ForCausalLM

from training.errors import InputError, ModelError
from training.model_files import NEW_SHAPES, estimate_parameters, inspect_model, read_model_config


def write_model(folder: Path, rows: int = 32, words: int = 32, **changes: Any) -> Path:
    """A folder that looks like a small Qwen2 model: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": rows, "hidden_size": 64,
        "max_position_embeddings": 256, "tie_word_embeddings": True, **changes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"model.embed_tokens.weight": np.zeros((rows, 64), np.float32), "model.norm.weight": np.zeros(64, np.float32)},
              folder / "model.safetensors")  # fmt: skip
    vocabulary = {f"w{index}": index for index in range(words)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return folder


def refusal(folder: Path, error: type[ModelError] | type[InputError] = ModelError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        inspect_model(folder, **options)
    assert caught.value.failure.hint
    return f"{caught.value.failure.message} {caught.value.failure.hint}"


def test_a_folder_tells_what_it_holds(tmp_path: Path) -> None:
    facts = inspect_model(write_model(tmp_path), max_length=256)
    assert facts.architecture == "Qwen2ForCausalLM" and facts.model_type == "qwen2" and facts.tied
    assert facts.parameters == 32 * 64 + 64 and facts.dtype == "F32"
    assert facts.vocab_size == facts.embedding_rows == facts.tokenizer_size == 32
    assert facts.max_positions == 256 and not facts.has_chat_template
    assert facts.bytes == (tmp_path / "model.safetensors").stat().st_size


def test_a_model_that_transformers_saved_in_shards_is_read(tmp_path: Path) -> None:
    config = Qwen2Config(**NEW_SHAPES["micro"].config())
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    assert (tmp_path / "model.safetensors.index.json").is_file()
    facts = inspect_model(tmp_path)
    assert facts.parameters == model.num_parameters() and facts.embedding_rows == 512


@pytest.mark.parametrize("name", ["micro", "tiny", "small"])
def test_the_estimate_is_what_transformers_builds(name: str) -> None:
    config = NEW_SHAPES[name].config()
    assert estimate_parameters(config) == Qwen2ForCausalLM(Qwen2Config(**config)).num_parameters()


def test_the_estimate_of_an_untied_model_counts_both_embeddings() -> None:
    config = {**NEW_SHAPES["micro"].config(), "tie_word_embeddings": False, "vocab_size": 100}
    assert estimate_parameters(config) == Qwen2ForCausalLM(Qwen2Config(**config)).num_parameters()


def test_512_tokens_asked_of_a_256_token_model_are_refused_at_the_field(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(InputError, match="512 tokens are asked of a model that reads 256") as caught:
        inspect_model(tmp_path, max_length=512)
    assert caught.value.failure.field == "max_length" and "256 or less" in caught.value.failure.hint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "There is no model folder" in refusal(tmp_path / "nothing")


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    assert "holds no config.json" in refusal(tmp_path)


def test_a_config_that_is_no_json_is_named(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "config.json").write_text("{model_type: qwen2}")
    assert "config.json is not valid JSON" in refusal(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").unlink()
    assert "holds no weights (model.safetensors)" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickle_weights_say_how_to_convert_them(tmp_path: Path, name: str) -> None:
    (write_model(tmp_path) / "model.safetensors").rename(tmp_path / name)
    said = refusal(tmp_path)
    assert f"only pickle weights ({name})" in said and "save_pretrained" in said


def test_custom_code_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, auto_map={"AutoModelForCausalLM": "modeling.Own"})
    assert "needs code of its own (auto_map" in refusal(tmp_path)


@pytest.mark.parametrize("start", [b"\x80\x04\x95", b"PK\x03\x04"])
def test_a_pickle_under_the_name_of_safetensors_is_recognised(tmp_path: Path, start: bytes) -> None:
    (write_model(tmp_path) / "model.safetensors").write_bytes(start + bytes(100))
    assert "is a pickle under another name" in refusal(tmp_path)


def test_a_header_of_2_to_the_63_bytes_is_not_read(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert "its header would be 9,223,372,036,854,775,808 bytes long" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 50, -1])
def test_truncated_weights_are_cut_short(tmp_path: Path, kept: int) -> None:
    path = write_model(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "is cut short" in refusal(tmp_path)


@pytest.mark.parametrize(
    "header",
    [b"nonsense", b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}',
     b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 16]}}'],
)  # fmt: skip
def test_a_damaged_header_is_named(tmp_path: Path, header: bytes) -> None:
    (write_model(tmp_path) / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "is damaged: its header cannot be read" in refusal(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks 1 of 2 weight files, such as model-00002-of-00002.safetensors" in refusal(tmp_path)


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../x.safetensors"}}))
    assert "outside the folder" in refusal(tmp_path)


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, rows=32, words=40)
    assert "has 40 tokens, but the model's embedding only 32 rows" in refusal(tmp_path)


def test_a_vocabulary_smaller_than_the_embedding_is_fine(tmp_path: Path) -> None:
    assert inspect_model(write_model(tmp_path, rows=40, words=32)).tokenizer_size == 32


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path, rows=32, vocab_size=48)
    assert "the embedding has 32 rows, vocab_size is 48" in refusal(tmp_path)


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    (write_model(tmp_path) / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "Qwen2ForSequenceClassification", "T5ForConditionalGeneration"])
def test_what_is_no_causal_language_model_is_refused(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, architectures=[name])
    assert f"is a {name}, not a causal language model" in refusal(tmp_path)


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, quantization_config={"bits": 4})
    assert "is quantised" in refusal(tmp_path)


def test_an_adapter_alone_is_no_model(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "LoRA adapter" in refusal(tmp_path)


def test_a_config_alone_is_enough_to_judge_the_architecture(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").unlink()
    assert read_model_config(tmp_path)["hidden_size"] == 64
