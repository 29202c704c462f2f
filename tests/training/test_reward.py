"""The reward stage as a whole, in this process, on models that train in milliseconds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests.training.small import EXACT, make_model, make_run, metrics, pairs, records, state_of, train, write_pairs
from training.errors import ModelError
from training.rundir import RunDir
from training.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "qwen2", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", 60)


def reward(folder: Path, model: Path, data: Path, stop_after: int | None = None, **settings: Any) -> RunDir:
    run_dir, run = make_run(folder, model, data, stage="reward", **settings)
    assert train(run_dir, run, stop_after) == (stop_after is not None)
    return run_dir


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_it_learns_which_answer_is_preferred_and_others_can_score_with_it(
    lora_rank: int | None, model: Path, data: Path, tmp_path: Path
) -> None:
    run_dir = reward(tmp_path, model, data, max_steps=60, eval_every=60, eval_fraction=0.2, lora_rank=lora_rank)
    values = metrics(run_dir)
    assert values[0, "eval_loss"] == pytest.approx(math.log(2), abs=0.1)
    assert values[60, "eval_loss"] < 0.5
    assert values[60, "eval_accuracy"] > 0.75
    assert 0 <= values[60, "eval_calibration_error"] <= 0.5
    assert values[60, "eval_margin"] == pytest.approx(
        values[60, "eval_reward_chosen"] - values[60, "eval_reward_rejected"], rel=1e-4
    )
    assert not records(run_dir, "sample")

    judge = AutoModelForSequenceClassification.from_pretrained(run_dir.model, dtype=torch.float32)
    tokenizer = load_tokenizer(run_dir.model)
    right = 0
    for row in pairs(30):
        scores = []
        for side in ("chosen", "rejected"):
            chat = [*row["prompt"], {"role": "assistant", "content": row[side]}]
            ids = tokenizer.apply_chat_template(chat, return_dict=False)
            scores.append(judge(torch.tensor([ids])).logits.item())
        right += scores[0] > scores[1]
    assert right >= 24


@pytest.mark.parametrize("asked", [3, 7, 15])
def test_a_stopped_run_goes_on_to_the_last_bit_wherever_it_was_stopped(
    asked: int, model: Path, data: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 9, "eval_every": 2, "save_every": 3, "micro_batch_size": 4}
    whole = reward(tmp_path / "whole", model, data, **settings)
    run_dir = reward(tmp_path / "run", model, data, stop_after=asked, **settings)
    reward(tmp_path / "run", model, data, attempt=2, **settings)
    assert metrics(run_dir, *EXACT) == metrics(whole, *EXACT)
    assert state_of(run_dir, 9) == state_of(whole, 9)
    ours, theirs = (load_file(each.model / "model.safetensors") for each in (run_dir, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_reward_model_is_nothing_to_train_from(model: Path, data: Path, tmp_path: Path) -> None:
    run_dir = reward(tmp_path / "judge", model, data, max_steps=1)
    with pytest.raises(ModelError, match="not a causal language model"):
        reward(tmp_path / "run", run_dir.model, data)
