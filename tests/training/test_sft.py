"""The sft stage as a whole, in this process, on models that train in milliseconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.small import (
    EXACT,
    logs,
    make_model,
    make_run,
    metrics,
    records,
    state_of,
    train,
    write_chats,
)
from training import checkpoint
from training.batches import examples_of_step
from training.data.encoding import TokenSet
from training.errors import DataError, DiskFull, Diverged, InputError, ModelError, OutOfMemory
from training.journal import Journal
from training.rundir import ResolvedInput, RunDir
from training.stages.sft import SftTask


def masked_by_hand(tokenizer: Any, ids: list[int]) -> list[int]:
    """Labels of a ChatML chat: what stands between an assistant's header and the end of its turn, with that end."""
    header, end = tokenizer.encode("<|im_start|>assistant\n"), tokenizer.convert_tokens_to_ids("<|im_end|>")
    labels, inside = [], False
    for place, token in enumerate(ids):
        labels.append(token if inside else -100)
        inside = token != end if inside else ids[: place + 1][-len(header) :] == header
    return labels


@pytest.mark.parametrize("packing", [True, False])
def test_ten_steps_are_those_of_a_plain_transformers_loop(
    packing: bool, small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, run = make_run(
        tmp_path, small_model, small_data, max_steps=10, packing=packing, micro_batch_size=3, warmup_steps=3,
        weight_decay=0.0, lr_schedule="linear", learning_rate=1e-2,
    )  # fmt: skip
    train(run_dir, run)
    ours = metrics(run_dir)

    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(run_dir.cache / "tokenizer")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    tokens = TokenSet.load(run_dir.cache / "train.npz")
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert any(masked_by_hand(tokenizer, tokens[i][0].tolist()).count(turn_end) > 1 for i in range(8)), "several turns"
    for step in range(1, 11):
        examples = [tokens[index][0].tolist() for index in examples_of_step(step, len(tokens), 8, 0)]
        batch = tokenizer.pad({"input_ids": examples}, padding_side="right", return_tensors="pt")
        labels = [masked_by_hand(tokenizer, ids) for ids in examples]
        padded = torch.tensor([row + [-100] * (batch["input_ids"].shape[1] - len(row)) for row in labels])
        loss = model(**batch, labels=padded).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = ours[step, "learning_rate"]
        optimizer.step()
        optimizer.zero_grad()
        assert ours[step, "loss"] == pytest.approx(loss.item(), rel=1e-5), step
        assert ours[step, "grad_norm"] == pytest.approx(norm.item(), rel=1e-5), step


def test_the_run_leaves_a_model_that_transformers_loads_and_says_how_it_was_made(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, run = make_run(tmp_path, small_model, small_data, max_steps=30, eval_every=10, sample_count=2)
    train(run_dir, run)
    values = metrics(run_dir)
    assert values[30, "eval_loss"] < values[0, "eval_loss"] - 1
    model, tokenizer = (kind.from_pretrained(run_dir.model) for kind in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer("What is two plus two?", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=4).shape[0] == 1
    assert not [each for each in run_dir.model.iterdir() if each.suffix in {".bin", ".pt"}]
    assert str(tmp_path) not in (run_dir.model / "README.md").read_text()
    [artifact] = [record for record in records(run_dir, "artifact") if record.body["name"] == "model"]
    assert artifact.body["facts"]["files"].keys() == {each.name for each in run_dir.model.iterdir()}
    samples = records(run_dir, "sample")
    assert {(record.step, record.body["index"]) for record in samples} == {(0, 0), (0, 1), (30, 0), (30, 1)}
    told = [
        record.body["phase"] if record.kind == "status" else "-"
        for record in records(run_dir)
        if record.kind in ("status", "sample")
    ]
    assert "".join(told).count("sampling--training") == 2
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_second", "tokens", "epoch", "memory", "utilisation"} == {
        key for step, key in values if step == 1
    }
    assert records(run_dir, "status")[-1].body["phase"] == "finished"


@pytest.mark.parametrize("asked", [2, 5, 12, 21])
def test_a_stopped_run_goes_on_to_the_last_bit_wherever_it_was_stopped(
    asked: int, tmp_path: Path, small_data: Path
) -> None:
    model = make_model(tmp_path / "gpt2", "gpt2", n_embd=32, n_layer=2, n_head=4)  # with dropout, so generators count
    settings = {"max_steps": 9, "eval_every": 2, "save_every": 3, "micro_batch_size": 3, "early_stopping_patience": 5}
    whole_dir, whole = make_run(tmp_path / "whole", model, small_data, **settings)
    assert not train(whole_dir, whole)
    run_dir, run = make_run(tmp_path / "run", model, small_data, **settings)
    assert train(run_dir, run, stop_after=asked)
    _, again = make_run(tmp_path / "run", model, small_data, attempt=2, **settings)
    assert not train(run_dir, again)
    assert metrics(run_dir, *EXACT) == metrics(whole_dir, *EXACT)
    assert state_of(run_dir, 9) == state_of(whole_dir, 9)
    ours, theirs = (load_file(each.model / "model.safetensors") for each in (run_dir, whole_dir))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # Only the step that was cut short is made twice, so nothing is journalled twice.
    steps = [record.step for record in records(run_dir, "metrics") if "loss" in record.body["values"]]
    assert steps == list(range(1, 10))


def test_a_run_stopped_in_an_eval_and_again_after_it_keeps_what_it_can_go_on_from(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 9, "eval_every": 4, "save_every": 8, "keep_checkpoints": 1}
    whole_dir, whole = make_run(tmp_path / "whole", small_model, small_data, **settings)
    train(whole_dir, whole)
    run_dir, run = make_run(tmp_path / "run", small_model, small_data, **settings)
    assert train(run_dir, run, stop_after=6)
    assert state_of(run_dir, 4)["evaluated"] == 0, "it was stopped in the eval of step 4"
    for attempt in (2, 3):  # each makes that eval, the best so far, and is stopped in step 5
        _, again = make_run(tmp_path / "run", small_model, small_data, attempt=attempt, **settings)
        assert train(run_dir, again, stop_after=2)
        assert metrics(run_dir)[4, "eval_loss"] == metrics(whole_dir)[4, "eval_loss"]
        assert (run_dir.checkpoints / "step-000004" / "optimizer.safetensors").exists()
    _, again = make_run(tmp_path / "run", small_model, small_data, attempt=4, **settings)
    assert not train(run_dir, again)
    assert metrics(run_dir, *EXACT) == metrics(whole_dir, *EXACT)
    steps = [record.step for record in records(run_dir, "metrics") if "loss" in record.body["values"]]
    assert steps == list(range(1, 10)), "no step was made twice"


def test_a_run_can_begin_from_any_checkpoint_of_another(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    parent, first = make_run(tmp_path / "a", small_model, small_data, max_steps=6, save_every=3, eval_every=3)
    train(parent, first)
    child, second = make_run(tmp_path / "b", parent.model, small_data, eval_every=3)
    reference = f"path:{parent.model}"
    weights = str(parent.checkpoints / "step-000003")
    source = ResolvedInput(reference=reference, path=str(parent.model), weights=weights)
    train(child, second.model_copy(update={"inputs": second.inputs | {reference: source}}))
    then = metrics(parent, "eval_loss")
    assert metrics(child)[0, "eval_loss"] == pytest.approx(then[3, "eval_loss"], rel=1e-6)
    assert then[3, "eval_loss"] != then[6, "eval_loss"]


def test_a_finished_run_that_did_not_say_so_finishes_without_training(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, run = make_run(tmp_path, small_model, small_data, eval_every=2)
    train(run_dir, run)
    before = metrics(run_dir)
    _, again = make_run(tmp_path, small_model, small_data, attempt=2, eval_every=2)
    train(run_dir, again)
    assert metrics(run_dir) == before, "not one step was made again"
    assert records(run_dir)[-1].body["phase"] == "finished"
    assert records(run_dir)[-1].attempt == 2


def test_other_data_under_the_same_name_is_not_gone_on_with(small_model: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", 40)
    run_dir, run = make_run(tmp_path / "run", small_model, data)
    train(run_dir, run)
    write_chats(data, 50)
    with pytest.raises(DataError, match="not what this run began with"):
        train(run_dir, run)


def test_a_hundredth_of_an_epoch_of_few_examples_is_a_step_of_one(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, run = make_run(tmp_path, small_model, small_data, max_steps=None, epochs=0.005)
    train(run_dir, run)
    values = metrics(run_dir)
    assert {step for step, key in values if key == "loss"} == {1}
    assert values[1, "epoch"] == pytest.approx(1 / 58)  # 64 chats, 6 of them held back


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_another_model_under_the_same_name_is_not_gone_on_with(
    lora_rank: int | None, small_data: Path, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model")
    run_dir, run = make_run(tmp_path / "run", model, small_data, lora_rank=lora_rank)
    assert train(run_dir, run, stop_after=5)
    before = metrics(run_dir)
    model.rename(tmp_path / "old")
    make_model(model, seed=7)
    with pytest.raises(ModelError, match=r"The model is not what this run began with, so it cannot go on from step-"):
        train(run_dir, run)
    assert metrics(run_dir) == before
    shutil.rmtree(model)
    shutil.copytree(tmp_path / "old", model, copy_function=shutil.copyfile)  # with new dates
    assert not train(run_dir, run)


def test_a_plateau_ends_the_run_and_the_best_step_becomes_the_model(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, run = make_run(
        tmp_path, small_model, small_data, max_steps=300, eval_every=4, early_stopping_patience=3, learning_rate=3e-2,
        lr_schedule="constant", keep_checkpoints=1,
    )  # fmt: skip
    train(run_dir, run)
    losses = {step: value for (step, key), value in metrics(run_dir, "eval_loss").items() if step}
    best, last = min(losses, key=losses.__getitem__), max(losses)
    assert last == best + 3 * 4 < 300
    assert "Stopped early: 3 evals in a row without a new best" in logs(run_dir)
    assert {each.name for each in run_dir.checkpoints.iterdir()} == {f"step-{best:06d}", f"step-{last:06d}"}
    model = load_file(run_dir.model / "model.safetensors")
    stored = load_file(run_dir.checkpoints / f"step-{best:06d}" / "model.safetensors")
    assert all(torch.equal(model[name], stored[name]) for name in model)


@pytest.mark.parametrize("keep", [1, 2])
def test_no_more_checkpoints_stand_at_once_than_room_was_asked_for(
    keep: int, small_model: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, save = 0, checkpoint.save

    def counted(run_dir: RunDir, *rest: Any) -> checkpoint.Checkpoint:
        nonlocal most
        saved = save(run_dir, *rest)
        full = [(path / "optimizer.safetensors").exists() for _, path in checkpoint.names(run_dir)]
        most = max(most, 3 * full.count(True) + full.count(False))
        return saved

    monkeypatch.setattr(checkpoint, "save", counted)
    run_dir, run = make_run(
        tmp_path, small_model, small_data, max_steps=18, eval_every=4, save_every=5, keep_checkpoints=keep,
        learning_rate=1e-3, lr_schedule="constant",
    )  # fmt: skip
    train(run_dir, run)
    losses = [value for (step, _), value in sorted(metrics(run_dir, "eval_loss").items())]
    assert losses == sorted(losses, reverse=True), "every eval is a new best"
    assert most == 4 * (keep + 1), "as room.py counts them, in trained weights"


def test_where_the_best_checkpoint_is_damaged_the_last_step_is_told_with_its_own_eval_loss(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 300, "eval_every": 4, "early_stopping_patience": 1, "learning_rate": 0.03}
    run_dir, run = make_run(tmp_path, small_model, small_data, lr_schedule="constant", **settings)
    train(run_dir, run)
    losses = {step: value for (step, _), value in metrics(run_dir, "eval_loss").items() if step}
    best, last = min(losses, key=losses.__getitem__), max(losses)
    assert best < last
    file = run_dir.checkpoints / f"step-{best:06d}" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    train(run_dir, run)
    artifact = [record for record in records(run_dir, "artifact") if record.body["name"] == "model"][-1]
    assert (artifact.body["facts"]["step"], artifact.body["facts"]["eval_loss"]) == (last, losses[last])
    card = (run_dir.model / "README.md").read_text()
    assert f"| Taken from step | {last} |" in card
    assert f"| Eval loss there | {losses[last]:.4f} |" in card


def test_a_checkpoint_with_other_weights_than_the_model_has_is_said_in_a_sentence(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, run = make_run(tmp_path, small_model, small_data)
    train(run_dir, run)
    state = checkpoint.load_state(checkpoint.check(checkpoint.place_of(run_dir, 6)))
    other = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(other.parameters())
    checkpoint.save(run_dir, other, state, optimizer, checkpoint.rng_state(), Journal(run_dir.journal, 1))
    with pytest.raises(ModelError, match="The run cannot go on: step-000006 belongs to another model"):
        train(run_dir, run)


def test_the_step_does_not_depend_on_the_micro_batches(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    curves = []
    for size in (None, 1, 3, 8):
        run_dir, run = make_run(tmp_path / str(size), small_model, small_data, micro_batch_size=size)
        train(run_dir, run)
        curves.append(metrics(run_dir, "loss", "grad_norm"))
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-5)


def test_gradient_checkpointing_changes_no_number(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    curves = []
    for on in (False, True):
        run_dir, run = make_run(tmp_path / str(on), small_model, small_data, gradient_checkpointing=on)
        train(run_dir, run)
        curves.append(metrics(run_dir, "loss", "grad_norm"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_bf16_trains_fp32_weights_and_nearly_the_same_curve(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    curves = []
    for precision in ("fp32", "bf16"):
        run_dir, run = make_run(tmp_path / precision, small_model, small_data, max_steps=20, precision=precision)
        train(run_dir, run)
        curves.append(metrics(run_dir, "loss"))
        assert {each.dtype for each in load_file(run_dir.checkpoints / "step-000020/model.safetensors").values()} == {
            torch.float32
        }
    assert curves[0] != curves[1]
    assert curves[0] == pytest.approx(curves[1], rel=0.02)


def test_a_bf16_model_stays_one_on_the_disk(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(small_model).save_pretrained(half)
    run_dir, run = make_run(tmp_path / "run", half, small_data)
    train(run_dir, run)
    assert {each.dtype for each in load_file(run_dir.model / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((run_dir.model / "config.json").read_text())["dtype"] == "bfloat16"


def test_lora_trains_small_matrices_and_leaves_a_whole_model(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    settings = {"lora_rank": 4, "max_steps": 40, "learning_rate": 2e-2, "eval_every": 10}
    run_dir, run = make_run(tmp_path, small_model, small_data, **settings)
    train(run_dir, run)
    values = metrics(run_dir)
    assert values[40, "eval_loss"] < values[0, "eval_loss"] - 0.5
    stored = load_file(run_dir.checkpoints / "step-000040" / "model.safetensors")
    assert all("lora_" in name for name in stored)
    assert (run_dir.outputs / "adapter" / "adapter_model.safetensors").exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (small_model, run_dir.model))
    assert before.keys() == after.keys(), "merged: an ordinary model"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("_proj.weight" in name for name in changed)
    # The merged model has the eval loss that training measured: a second run's first eval tells.
    second_dir, second = make_run(tmp_path / "second", run_dir.model, small_data, max_steps=1, learning_rate=1e-9)
    train(second_dir, second)
    assert metrics(second_dir)[0, "eval_loss"] == pytest.approx(
        min(value for (_, key), value in values.items() if key == "eval_loss"), rel=1e-4
    )


def test_a_stopped_lora_run_goes_on_to_the_last_bit(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    settings = {"lora_rank": 2, "lora_dropout": 0.3, "max_steps": 5, "micro_batch_size": 3}
    whole_dir, whole = make_run(tmp_path / "whole", small_model, small_data, **settings)
    train(whole_dir, whole)
    run_dir, run = make_run(tmp_path / "run", small_model, small_data, **settings)
    assert train(run_dir, run, stop_after=9)
    train(run_dir, run)
    assert metrics(run_dir, *EXACT) == metrics(whole_dir, *EXACT)


def test_a_loss_that_is_no_number_ends_the_run_with_its_step_and_the_last_checkpoint(
    small_model: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, run = make_run(tmp_path, small_model, small_data, save_every=2)
    steps, parts = iter(range(1, 100)), SftTask.parts

    def poisoned(self: SftTask, *rest: Any) -> Any:
        values = parts(self, *rest)
        return {"loss": values["loss"] * float("nan")} if next(steps) == 5 else values

    monkeypatch.setattr(SftTask, "parts", poisoned)
    with pytest.raises(Diverged, match="The loss is not a finite number at step 5") as caught:
        train(run_dir, run)
    assert (caught.value.failure.step, caught.value.failure.checkpoint) == (5, "step-000004")
    assert metrics(run_dir)[5, "loss"] == "NaN"
    weights = load_file(run_dir.checkpoints / "step-000004" / "model.safetensors")
    assert all(each.isfinite().all() for each in weights.values())


def test_a_gradient_that_is_no_number_ends_the_run_too(small_data: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][:] = 1e30  # the loss is finite, its gradient's norm is not
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    run_dir, run = make_run(tmp_path / "run", model, small_data, eval_fraction=0)
    with pytest.raises(Diverged, match=r"at step 1\. There is no checkpoint before it"):
        train(run_dir, run)


def test_when_memory_runs_out_micro_batches_are_halved_and_the_curve_stays(
    small_model: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_dir, expected = make_run(tmp_path / "expected", small_model, small_data)
    train(expected_dir, expected)
    parts = SftTask.parts

    def small_device(self: SftTask, examples: Any, *rest: Any) -> Any:
        if len(examples) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return parts(self, examples, *rest)

    monkeypatch.setattr(SftTask, "parts", small_device)
    run_dir, run = make_run(tmp_path / "run", small_model, small_data, micro_batch_size=8)
    train(run_dir, run)
    assert metrics(run_dir, "loss") == pytest.approx(metrics(expected_dir, "loss"), rel=1e-5)
    assert "Out of memory: micro-batches are now 2 examples." in logs(run_dir)
    assert state_of(run_dir, 6)["micro_batch"] == {"examples": 2, "tokens": None}


def test_a_device_too_small_for_one_example_is_said(
    small_model: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: SftTask, *rest: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(SftTask, "parts", none)
    run_dir, run = make_run(tmp_path, small_model, small_data)
    with pytest.raises(OutOfMemory, match="even for one example at a time"):
        train(run_dir, run)


def test_a_new_model_is_the_same_for_the_same_seed(small_data: Path, tmp_path: Path) -> None:
    curves = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_dir, run = make_run(tmp_path / name, "new:micro", small_data, seed=seed, max_steps=3, sample_count=1)
        train(run_dir, run)
        curves[name] = metrics(run_dir, *EXACT)
    assert curves["a"] == curves["b"]
    assert curves["a"] != curves["c"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "model").config.model_type == "qwen2"


def test_plain_text_is_learnt_on_every_token(small_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": f"It is {n} plus {n}. " * 3}) + "\n" for n in range(30)))
    run_dir, run = make_run(tmp_path / "run", small_model, data, sample_count=1)
    train(run_dir, run)
    tokens = TokenSet.load(run_dir.cache / "train.npz")
    assert len(tokens.scored) - tokens.scored.sum() == len(tokens), "all but each text's first"
    assert records(run_dir, "sample")[0].body["prompt"].startswith("It is")


def test_what_truncation_did_is_told(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    run_dir, run = make_run(tmp_path, small_model, small_data, max_length=40)
    train(run_dir, run)
    assert "longer than 40 tokens and cut at the end" in logs(run_dir)


def refused(
    error: type[Exception], words: str, tmp_path: Path, model: Path | str, data: Path, **settings: Any
) -> RunDir:
    """The run ends with this sentence, and before training: not one metric, no checkpoint, no model."""
    run_dir, run = make_run(tmp_path / "run", model, data, **settings)
    with pytest.raises(error, match=words):
        train(run_dir, run)
    assert not metrics(run_dir)
    assert not run_dir.checkpoints.exists()
    assert not run_dir.model.exists()
    return run_dir


def test_more_tokens_than_the_model_reads_are_refused(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    refused(
        InputError, "512 tokens are asked of a model that reads 256", tmp_path, small_model, small_data, max_length=512
    )
    refused(InputError, "1,024 tokens are asked", tmp_path, "new:micro", small_data, max_length=1024)


def test_a_tokenizer_larger_than_the_embedding_is_refused(small_data: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", vocab_size=200)
    refused(ModelError, "embedding only 200 rows", tmp_path, model, small_data)


def test_a_model_file_without_all_weights_is_refused(small_data: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    refused(ModelError, r"lack 1 of its weights, model.layers.1.mlp.up_proj.weight", tmp_path, model, small_data)


def test_an_unknown_shape_names_those_there_are(small_data: Path, tmp_path: Path) -> None:
    refused(InputError, "no shape “vast”", tmp_path, "new:vast", small_data)


def test_too_little_room_on_the_disk_is_said_before_training(
    small_model: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    refused(DiskFull, "GiB are free", tmp_path, small_model, small_data)
