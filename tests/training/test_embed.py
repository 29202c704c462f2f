"""Sentence embeddings: the packaged model, one of the Hub, and what is no embedder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from tests.minihub import MiniHub
from training import embed
from training.embed import open_embedder
from training.errors import HubError, ModelError
from training.journal import Journal, Record, read_lines

TEXTS = ["How do I boil an egg?", "What is the best way to boil an egg, if I may ask?", "Who wrote Faust?"]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sentence-transformers model of a few thousand weights."""
    folder = tmp_path_factory.mktemp("small")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefgh"),
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    bert = Transformer(str(folder / "bert"), max_seq_length=32)
    SentenceTransformer(modules=[bert, Pooling(16)], device="cpu").save(str(folder / "model"))
    return folder / "model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniHub]:
    with MiniHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


def test_the_packaged_model_gives_the_mean_of_its_last_layer_at_length_one(journal: Journal) -> None:
    """As the model's card computes it, with transformers alone."""
    folder = embed._packaged()
    assert folder is not None
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (states * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(means, dim=1).numpy()
    found = open_embedder("", journal).encode(TEXTS)
    assert found.shape == (3, 384) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] @ found[1] > 0.8 and found[0] @ found[2] < 0.3


def test_it_says_which_texts_it_does_not_read_to_their_end_or_not_at_all(journal: Journal) -> None:
    embedder = open_embedder("", journal)
    assert embedder.reads(["A question?", "word " * 253, "word " * 260, "请写一首关于大海的诗", ""]) == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert embedder.reads([]) == [] and embedder.encode([]).shape == (0, 384)


def test_packaged_weights_that_are_others_are_refused(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / embed.PACKAGE / "model"
    model.mkdir(parents=True)
    (tmp_path / embed.PACKAGE / "__init__.py").write_text("raise SystemExit('the package was run')")
    (model / "modules.json").write_text("[]")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="its weights are missing"):
        open_embedder("", journal)
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ModelError, match="is not all-MiniLM-L6-v2: its weights are others"):
        open_embedder("", journal)


def test_without_the_package_the_model_comes_from_the_hub(
    journal: Journal, small: Path, hub: MiniHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, embed.PACKAGE, None)  # as where it is not installed
    with pytest.raises(HubError, match="The Hub has no model sentence-transformers/all-MiniLM-L6-v2"):
        open_embedder("", journal)
    hub.add("model", "sentence-transformers/all-MiniLM-L6-v2", small)
    assert open_embedder("", journal).encode(["abc"]).shape == (1, 16)


def test_a_model_of_the_hub_is_fetched_without_code_and_pickles(
    journal: Journal, small: Path, hub: MiniHub, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    for path in (path for path in small.rglob("*") if path.is_file()):
        target = repo / path.relative_to(small)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (repo / "pytorch_model.bin").write_bytes(b"pickle")
    (repo / "modeling.py").write_text("raise SystemExit('code of the Hub was run')")
    (repo / "onnx").mkdir()
    (repo / "onnx" / "model.onnx").write_bytes(b"onnx")
    commit = hub.add("model", "me/small", repo)
    embedder = open_embedder("hf:me/small", journal)
    here = SentenceTransformer(str(small), device="cpu").encode(["abc"], normalize_embeddings=True)
    np.testing.assert_allclose(embedder.encode(["abc"]), here, atol=1e-6)
    fetched = {Path(request.path).name for request in hub.requests if "/resolve/" in request.path}
    assert "model.safetensors" in fetched and not fetched & {"pytorch_model.bin", "modeling.py", "model.onnx"}
    told = [line.body for line in read_lines(tmp_path / "journal.jsonl", 0).lines if isinstance(line, Record)]
    assert [body["facts"]["revision"] for body in told if body.get("name") == "embedder"] == [commit]


def test_a_folder_may_be_named(journal: Journal, small: Path) -> None:
    assert open_embedder(f"path:{small}", journal).encode(["abc"]).shape == (1, 16)


def test_what_is_no_embedder_is_refused_with_its_name(
    journal: Journal, small_model: Path, hub: MiniHub, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"is no sentence-transformers model: it has no modules\.json"):
        open_embedder(f"path:{small_model}", journal)
    hub.add("model", "me/llm", small_model)
    with pytest.raises(ModelError, match="hf:me/llm is no sentence-transformers model with safetensors weights"):
        open_embedder("hf:me/llm", journal)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "modules.json").write_text("nonsense")
    with pytest.raises(ModelError, match="broken cannot be loaded"):
        open_embedder(f"path:{tmp_path / 'broken'}", journal)


def test_offline_a_model_that_was_not_fetched_before_is_said_so(
    journal: Journal, hub: MiniHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError):
        open_embedder("hf:me/small", journal)
    assert hub.requests == []
