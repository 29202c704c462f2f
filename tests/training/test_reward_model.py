"""A reward model from a causal one; its rewards against transformers' own forward, before and after export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.training.pairs import random_pairs
from tests.training.small import make_model
from training.config import RewardConfig
from training.data.packing import sequences_of
from training.data.pairs import PairSet
from training.device import Device
from training.errors import ModelError
from training.export import export_model, model_card
from training.forward import padded_forward
from training.generate import set_ends
from training.loading import Loaded, as_reward_model, load_model, prepare_for_training
from training.pair_forward import PairForward, prepare_pair_forward
from training.rundir import RunDir
from training.tokenizer import load_tokenizer, stop_ids

CPU = Device(torch.device("cpu"), half=False)
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {"tie_word_embeddings": True},
    "llama": {},
    "gpt_neox": {},
    "gemma2": {"head_dim": 8, "sliding_window": 4096},  # padded
    "mistral": {"sliding_window": 16},  # padded
}
PAIRS = random_pairs([(5, 7, 9), (30, 2, 40), (1, 1, 3)])
ALL = [0, 1, 2]


def config(**settings: Any) -> RewardConfig:
    return RewardConfig(model="path:/models/base", dataset=["data:pairs"], precision="fp32", **settings)


def ending_in_turn_ends(pairs: PairSet, tokenizer: Any) -> PairSet:
    """The same pairs, every answer's last token one that ends a turn or a text."""
    ids = pairs.ids.copy()
    ends = stop_ids(tokenizer)
    for index in range(len(pairs)):
        for answer, end in zip(pairs.parts(index)[1:], (ends[0], ends[-1]), strict=True):
            ids[answer.stop - 1] = end
    return PairSet(ids, pairs.scored, pairs.offsets, pairs.source)


def one_by_one(model: Any, pairs: PairSet) -> Tensor:
    """transformers' own scores of each answer alone, (n, 2)."""
    model.eval()
    with torch.no_grad():
        rows = [torch.from_numpy(ids.astype(np.int64))[None] for ids, _ in sequences_of(pairs, ALL)]
        return torch.cat([model(input_ids=row).logits for row in rows]).view(-1, 2)


def in_one_batch(model: Any, pairs: PairSet, pad_id: int) -> Tensor:
    """The same, padded on the right, (n, 2)."""
    model.eval()
    rows = [torch.from_numpy(ids.astype(np.int64)) for ids, _ in sequences_of(pairs, ALL)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits.view(-1, 2)


def train_a_little(loaded: Loaded, forward: PairForward) -> None:
    """Two steps, large enough to be seen."""
    optimizer = torch.optim.SGD([each for each in loaded.model.parameters() if each.requires_grad], lr=0.1)
    loaded.model.train()
    for _ in range(2):
        rewards = forward.rewards(PAIRS, ALL)
        (rewards[:, 1] - rewards[:, 0]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    loaded.model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_and_gradients_are_those_of_transformers_on_padded_sequences(kind: str, tmp_path: Path) -> None:
    make_model(tmp_path, kind, **KINDS[kind])
    ours = as_reward_model(load_model(tmp_path), seed=3)
    forward, _ = prepare_pair_forward(ours.model, CPU, 128)
    assert forward.shared == (kind not in {"gemma2", "mistral"})
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    theirs.load_state_dict(ours.model.state_dict())
    rewards = forward.rewards(PAIRS, ALL)
    rows = [torch.from_numpy(ids.astype(np.int64))[None] for ids, _ in sequences_of(PAIRS, ALL)]
    expected = torch.cat([theirs.eval()(input_ids=row).logits for row in rows]).view(-1, 2)
    assert rewards.dtype == torch.float32
    torch.testing.assert_close(rewards, expected, rtol=1e-5, atol=1e-6)
    weights = torch.tensor([[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0]])
    (weights * rewards).sum().backward()
    (weights * expected).sum().backward()
    for (name, mine), each in zip(ours.model.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and each.grad is not None, name
        torch.testing.assert_close(mine.grad, each.grad, rtol=1e-4, atol=1e-6)


def test_the_base_is_the_loaded_model_itself_and_the_head_comes_from_the_seed(tmp_path: Path) -> None:
    make_model(tmp_path)
    loaded = load_model(tmp_path)
    base = loaded.model.base_model
    reward = as_reward_model(loaded, seed=1)
    assert reward.model.base_model is base, "nothing is read or copied twice"
    head, same = reward.model.score.weight, as_reward_model(load_model(tmp_path), seed=1).model.score.weight
    assert torch.equal(head, same)
    assert not torch.equal(head, as_reward_model(load_model(tmp_path), seed=2).model.score.weight)
    assert reward.parameters == sum(each.numel() for each in base.parameters()) + 32


def test_the_first_rewards_are_near_0(tmp_path: Path) -> None:
    make_model(tmp_path)
    found = []
    for seed in range(40):
        forward, _ = prepare_pair_forward(as_reward_model(load_model(tmp_path), seed).model, CPU, 128)
        with torch.no_grad():
            found.append(forward.rewards(PAIRS, ALL))
    rewards = torch.stack(found)
    assert rewards.std().item() == pytest.approx(0.1, rel=0.2)
    assert abs(rewards.mean().item()) < 0.05


@pytest.mark.parametrize("kind", ["mamba", "bert"])
def test_an_architecture_without_scores_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    changes = {"mamba": {"state_size": 4}, "bert": {"is_decoder": True}}[kind]
    make_model(tmp_path, kind, **changes)
    with pytest.raises(ModelError, match=f"no reward model of the architecture “{kind}”"):
        as_reward_model(load_model(tmp_path), 0)


@pytest.mark.parametrize("lora", [None, 4])
def test_the_exported_model_gives_the_same_rewards_in_transformers(lora: int | None, tmp_path: Path) -> None:
    make_model(tmp_path / "base")
    tokenizer = load_tokenizer(tmp_path / "base")
    loaded = load_model(tmp_path / "base")
    set_ends(loaded.model, tokenizer)
    loaded = as_reward_model(loaded, 0)
    forward, _ = prepare_pair_forward(loaded.model, CPU, 128)
    prepare_for_training(loaded, config(lora_rank=lora), CPU)
    pairs = ending_in_turn_ends(PAIRS, tokenizer)
    with torch.no_grad():
        before = forward.rewards(pairs, ALL)
    train_a_little(loaded, forward)
    with torch.no_grad():
        rewards = forward.rewards(pairs, ALL)
    assert (rewards - before).abs().max() > 0.01

    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    export_model(loaded, tokenizer, model_card(config(), "judge", "tests", {}), run_dir)
    model = AutoModelForSequenceClassification.from_pretrained(run_dir.model)
    saved = AutoTokenizer.from_pretrained(run_dir.model)
    assert model.config.num_labels == 1 and model.config.pad_token_id == saved.pad_token_id
    assert saved.pad_token_id not in stop_ids(tokenizer), "it would be taken for padding at the end of an answer"
    torch.testing.assert_close(one_by_one(model, pairs), rewards, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_one_batch(model, pairs, saved.pad_token_id), rewards, rtol=1e-5, atol=1e-5)


def test_lora_trains_the_score_head_in_full_and_the_rest_stays(tmp_path: Path) -> None:
    make_model(tmp_path)
    loaded = as_reward_model(load_model(tmp_path), 0)
    loaded.source_dtype = torch.bfloat16
    half = Device(torch.device("cpu"), half=True)
    forward, _ = prepare_pair_forward(loaded.model, half, 128)
    prepare_for_training(loaded, config(lora_rank=2), half)
    trained = {name: each for name, each in loaded.model.named_parameters() if each.requires_grad}
    assert all("lora_" in name or "score" in name for name in trained)
    assert [tuple(each.shape) for name, each in trained.items() if "score" in name] == [(1, 32)]
    assert {each.dtype for each in trained.values()} == {torch.float32}
    rewards = forward.rewards(PAIRS, ALL)
    assert rewards.dtype == torch.float32
    rewards.sum().backward()
    assert all(each.grad is not None for each in trained.values())


def test_padded_and_shared_pairs_have_the_same_rewards(tmp_path: Path) -> None:
    make_model(tmp_path)
    shared, _ = prepare_pair_forward(as_reward_model(load_model(tmp_path), 0).model, CPU, 128)
    padded = PairForward(padded_forward(as_reward_model(load_model(tmp_path), 0).model, CPU), shared=False)
    with torch.no_grad():
        torch.testing.assert_close(shared.rewards(PAIRS, ALL), padded.rewards(PAIRS, ALL), rtol=1e-5, atol=1e-6)


def test_the_card_says_how_to_read_a_score_and_what_it_shows_runs(tmp_path: Path) -> None:
    make_model(tmp_path / "base")
    tokenizer = load_tokenizer(tmp_path / "base")
    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    loaded = as_reward_model(load_model(tmp_path / "base"), 0)
    export_model(loaded, tokenizer, model_card(config(), "judge", "tests", {}), run_dir)
    card = (run_dir.model / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    said: list[float] = []
    exec(code.replace('"model"', repr(str(run_dir.model))), {"print": said.append})
    assert len(said) == 1 and abs(said[0]) < 1
