"""The dpo stage as a whole, in this process, on models that train in milliseconds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.training.small import EXACT, logs, make_model, make_run, metrics, pairs, records, state_of, train
from training import reference
from training.batches import examples_of_step
from training.data.pairs import PairSet
from training.rundir import RunDir
from training.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "qwen2", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", pairs(48))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def dpo(folder: Path, model: Path, data: Path, stop_after: int | None = None, **settings: Any) -> RunDir:
    """One attempt of a run."""
    run_dir, run = make_run(folder, model, data, stage="dpo", **settings)
    assert train(run_dir, run, stop_after) == (stop_after is not None)
    return run_dir


def summed_by_hand(model: Any, ids: list[int], answer: int) -> torch.Tensor:
    """log p of the last `answer` tokens, summed, from all of the model's logits."""
    logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    targets = torch.tensor(ids[1:])
    return logprobs.gather(1, targets[:, None])[-answer:, 0].sum()


def test_steps_are_those_of_a_plain_loop_with_its_clamp_and_its_warm_up(
    model: Path, data: Path, tmp_path: Path
) -> None:
    run_dir = dpo(
        tmp_path, model, data, max_steps=8, beta=0.5, beta_warmup_steps=4, margin_clamp=1.0, micro_batch_size=3,
        learning_rate=1e-2, lr_schedule="linear", eval_every=8,
    )  # fmt: skip
    ours = metrics(run_dir)

    policy, frozen = (AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32) for _ in range(2))
    tokenizer = load_tokenizer(model)
    rows = pairs(48)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, weight_decay=0.0)
    tokens = PairSet.load(run_dir.cache / "train.npz")
    cut = []
    for step in range(1, 9):
        losses = []
        for index in examples_of_step(step, len(tokens), 8, 0):
            row = rows[tokens.source[index]]
            prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
            ratios = []
            for side in ("chosen", "rejected"):
                answer = tokenizer.encode(row[side] + "<|im_end|>")
                both = [summed_by_hand(each, prompt + answer, len(answer)) for each in (policy, frozen)]
                ratios.append(both[0] - both[1].detach())
            margin = ratios[0] - ratios[1]
            cut.append(abs(margin.item()) > 1)
            losses.append(-torch.nn.functional.logsigmoid(0.5 * min(1, step / 4) * margin.clamp(-1, 1)))
        loss = torch.stack(losses).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = ours[step, "learning_rate"]
        optimizer.step()
        optimizer.zero_grad()
        assert ours[step, "loss"] == pytest.approx(loss.item(), rel=1e-5), step
        assert ours[step, "grad_norm"] == pytest.approx(norm.item(), rel=1e-4), step
        assert ours[step, "beta"] == pytest.approx(0.5 * min(1, step / 4)), step
        assert ours[step, "clamped"] == pytest.approx(sum(cut[-8:]) / 8), step
    assert 0 < sum(cut) < len(cut), "some margins were clamped, and some were not"


def test_it_begins_at_ln_2_and_learns_what_is_preferred(model: Path, data: Path, tmp_path: Path) -> None:
    run_dir = dpo(tmp_path, model, data, max_steps=40, eval_every=10, sample_count=3, sample_every=20)
    values = metrics(run_dir)
    assert values[0, "eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert values[0, "eval_margin"] == pytest.approx(0, abs=1e-4)
    assert values[40, "eval_loss"] < 0.5
    assert values[40, "eval_accuracy"] > 0.7
    chosen, rejected = values[40, "eval_reward_chosen"], values[40, "eval_reward_rejected"]
    assert values[40, "eval_margin"] == pytest.approx(chosen - rejected, rel=1e-5)
    assert chosen == pytest.approx(0.1 * (values[40, "eval_logp_chosen"] - values[0, "eval_logp_chosen"]), rel=1e-3)
    assert values[0, "kl"] == pytest.approx(0, abs=1e-6)
    assert values[40, "kl"] > values[20, "kl"] * 0.5 > 0
    assert {record.step for record in records(run_dir, "sample")} == {0, 20, 40}
    assert values[40, "answer_length"] > 0
    assert "clamped" not in {key for _, key in values}, "nothing is said of a clamp that is off"
    AutoModelForCausalLM.from_pretrained(run_dir.model)


@pytest.mark.parametrize("settings", [{"loss": "ipo"}, {"loss": "sigmoid_norm", "beta": 2}, {"label_smoothing": 0.1}])
def test_every_loss_learns_what_is_preferred(settings: dict[str, Any], model: Path, data: Path, tmp_path: Path) -> None:
    values = metrics(dpo(tmp_path, model, data, max_steps=30, eval_every=30, **settings))
    assert values[30, "eval_loss"] < values[0, "eval_loss"]
    assert values[30, "eval_accuracy"] > 0.7


# -- what the reference said is kept --------------------------------------------------------------------------------

PASS = "The reference reads {} pairs"
KEPT = "The reference's log-probabilities of all {} pairs are kept"


def test_a_second_run_on_the_same_data_and_model_reads_nothing_with_the_reference(
    model: Path, data: Path, tmp_path: Path
) -> None:
    first = dpo(tmp_path / "first", model, data, shared=tmp_path / "shared")
    assert PASS.format(48) in logs(first)
    second = dpo(tmp_path / "second", model, data, shared=tmp_path / "shared", beta=0.3, seed=1, loss="ipo")
    assert KEPT.format(48) in logs(second)
    assert "reading with the reference" not in {record.body["phase"] for record in records(second, "status")}
    third = dpo(tmp_path / "third", model, data, shared=tmp_path / "shared")
    assert metrics(third, *EXACT) == metrics(first, *EXACT)


def test_with_more_pairs_it_reads_only_the_new_ones(model: Path, data: Path, tmp_path: Path) -> None:
    dpo(tmp_path / "first", model, data, shared=tmp_path / "shared")
    more = write(tmp_path / "more.jsonl", pairs(60))
    assert "reads 12 of 60 pairs" in logs(dpo(tmp_path / "b", model, more, shared=tmp_path / "shared"))


def test_a_changed_word_of_the_data_is_read_anew(model: Path, data: Path, tmp_path: Path) -> None:
    dpo(tmp_path / "first", model, data, shared=tmp_path / "shared")
    rows = pairs(48)
    rows[5]["rejected"] += " Really."
    changed = write(tmp_path / "changed.jsonl", rows)
    assert "reads 1 of 48 pairs" in logs(dpo(tmp_path / "b", model, changed, shared=tmp_path / "shared"))


def test_a_changed_word_of_the_template_makes_a_pass_over_all(model: Path, data: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "model", tie_word_embeddings=True)
    shared = tmp_path / "shared"
    dpo(tmp_path / "first", other, data, shared=shared)
    (template,) = other.glob("chat_template.jinja")
    template.write_text(template.read_text().replace("\\n' + message", "\\nNow: ' + message"))
    assert "Now: " in template.read_text()
    assert PASS.format(48) in logs(dpo(tmp_path / "b", other, data, shared=shared))


def test_another_model_makes_a_pass_over_all(model: Path, data: Path, tmp_path: Path) -> None:
    dpo(tmp_path / "first", model, data, shared=tmp_path / "shared")
    other = make_model(tmp_path / "model", seed=1, tie_word_embeddings=True)
    assert PASS.format(48) in logs(dpo(tmp_path / "b", other, data, shared=tmp_path / "shared"))


def test_a_pass_that_was_stopped_goes_on_where_it_was(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "SHARD", 8)
    settings: dict[str, Any] = {"micro_batch_size": 4}
    whole = dpo(tmp_path / "whole", model, data, **settings)
    stopped = dpo(tmp_path / "run", model, data, stop_after=5, **settings)  # in the third shard
    assert not metrics(stopped)
    run_dir = dpo(tmp_path / "run", model, data, attempt=2, **settings)
    assert "reads 32 of 48 pairs" in logs(run_dir)
    assert metrics(run_dir, *EXACT) == metrics(whole, *EXACT)


def test_another_reference_is_what_the_model_is_held_against(model: Path, data: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=1, tie_word_embeddings=True)
    run_dir = dpo(tmp_path / "run", model, data, reference_model=f"path:{other}", max_steps=1, sample_count=2)
    values = metrics(run_dir)
    assert abs(values[0, "eval_margin"]) > 1e-3
    assert values[0, "kl"] > 0.1


# -- exactness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [3, 8, 12, 24])
@pytest.mark.parametrize("lora_rank", [None, 2])
def test_a_stopped_run_goes_on_to_the_last_bit_wherever_it_was_stopped(
    asked: int, lora_rank: int | None, model: Path, data: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "max_steps": 9, "eval_every": 2, "save_every": 3, "micro_batch_size": 4, "beta_warmup_steps": 6,
        "margin_clamp": 5, "sample_count": 2, "sample_every": 3, "lora_rank": lora_rank, "lora_dropout": 0.1,
    }  # fmt: skip
    whole = dpo(tmp_path / "whole", model, data, **settings)
    run_dir = dpo(tmp_path / "run", model, data, stop_after=asked, **settings)
    dpo(tmp_path / "run", model, data, attempt=2, **settings)
    assert metrics(run_dir, *EXACT) == metrics(whole, *EXACT)
    assert state_of(run_dir, 9) == state_of(whole, 9)
    ours, theirs = (load_file(each.model / "model.safetensors") for each in (run_dir, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_early_stop_comes_where_it_would_have_come(model: Path, data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "max_steps": 60, "eval_every": 1, "save_every": 2, "early_stopping_patience": 3, "learning_rate": 0.1,
    }  # fmt: skip
    whole = dpo(tmp_path / "whole", model, data, **settings)
    last = max(step for step, key in metrics(whole) if key == "loss")
    assert last < 60
    assert "Stopped early" in logs(whole)
    run_dir = dpo(tmp_path / "run", model, data, stop_after=16, **settings)
    dpo(tmp_path / "run", model, data, attempt=2, **settings)
    assert metrics(run_dir, *EXACT) == metrics(whole, *EXACT)


def test_a_learning_rate_of_5e_6_moves_the_weights_in_bf16(data: Path, tmp_path: Path) -> None:
    """Adam's step is about the learning rate; a bf16 weight of 0.1 takes no step below 0.0002 (half its spacing)."""
    source = make_model(tmp_path / "model", tie_word_embeddings=True)
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    run_dir = dpo(
        tmp_path / "run", source, data, precision="bf16", learning_rate=5e-6, max_steps=3, save_every=3,
        lr_schedule="constant",
    )  # fmt: skip
    before = load_file(source / "model.safetensors")
    after = load_file(run_dir.checkpoints / "step-000003" / "model.safetensors")
    assert {each.dtype for each in before.values()} == {torch.bfloat16}
    assert {each.dtype for each in after.values()} == {torch.float32}
    layers = [name for name in after if "proj.weight" in name]
    moved = torch.cat([(after[name] - before[name].float()).flatten() for name in layers])
    assert moved.abs().median() > 5e-6, "three steps of about 5e-6, most in one direction"
    rounded = torch.cat([(after[name].bfloat16() != before[name]).flatten() for name in layers])
    assert rounded.float().mean() < 0.1, "weights kept in bf16 would hardly have moved"


def test_lora_trains_its_matrices_alone_and_leaves_a_whole_model(model: Path, data: Path, tmp_path: Path) -> None:
    run_dir = dpo(tmp_path, model, data, lora_rank=4, max_steps=20, eval_every=20)
    values = metrics(run_dir)
    assert values[0, "eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert values[20, "eval_loss"] < values[0, "eval_loss"]
    names = load_file(run_dir.checkpoints / "step-000020" / "model.safetensors")
    assert all("lora_" in name for name in names)
    AutoModelForCausalLM.from_pretrained(run_dir.model)
