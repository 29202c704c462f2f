"""Whole runs of experiments that hold prompts out: what is trained on, what refuses, what is answered later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.training.small import WORDS, chats, logs, make_run, records, train, write_chats, write_pairs
from training.data.prompt_sets import load_prompts
from training.errors import DataError
from training.journal import Journal
from training.rundir import HeldOut, ResolvedInput, RunDir, RunFile

FEW: dict[str, Any] = {"max_steps": 2, "eval_every": 2, "save_every": 2}


def held_out(made: tuple[RunDir, RunFile], folder: Path, data: Path, **settings: Any) -> tuple[RunDir, RunFile]:
    """The run, of an experiment that holds prompts of this data set out."""
    run_dir, run = made
    wanted = HeldOut(dataset=f"path:{data}", path=str(folder / "held_out.jsonl"), **{"n": 8, **settings})
    source = ResolvedInput(reference=wanted.dataset, path=str(data))
    run = run.model_copy(update={"held_out": wanted, "inputs": {**run.inputs, wanted.dataset: source}})
    run_dir.write_config(run)
    return run_dir, run


def counted(run_dir: RunDir) -> list[tuple[int, int, int]]:
    told = [record.body for record in records(run_dir, "artifact") if record.body["name"] == "held-out rows taken out"]
    return [tuple(body["facts"][key] for key in ("rows", "equal", "nearly")) for body in told]  # type: ignore[misc]


def drawn(folder: Path) -> list[str]:
    rows = (folder / "held_out.jsonl").read_bytes().splitlines()[1:]
    return [orjson.loads(row)["prompt"][-1]["content"] for row in rows]


def test_an_sft_run_learns_nothing_of_what_its_data_set_holds_out(small_model: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", turns=1)
    run_dir, run = held_out(make_run(tmp_path / "a", small_model, data, **FEW), tmp_path, data)
    train(run_dir, run)
    assert len(set(drawn(tmp_path))) == 8
    assert counted(run_dir) == [(64, 8, 0)]
    assert "8 prompts of path:" in logs(run_dir) and "8 rows were taken out" in logs(run_dir)
    assert "examples to train on" in logs(run_dir) and (run_dir.model / "model.safetensors").exists()
    train_part = [line for line in logs(run_dir).splitlines() if "to train on" in line]
    assert train_part[0].startswith("50 examples to train on") and "6 are held back for eval" in train_part[0]


def test_a_run_that_goes_on_takes_the_tokens_that_it_made_unless_something_else_is_held_out(
    small_model: Path, tmp_path: Path
) -> None:
    data = write_chats(tmp_path / "chats.jsonl", turns=1)
    run_dir, run = held_out(make_run(tmp_path / "a", small_model, data, **FEW), tmp_path, data)
    train(run_dir, run)
    again = run.model_copy(update={"attempt": 2})
    train(run_dir, again)
    assert len(counted(run_dir)) == 1
    (tmp_path / "held_out.jsonl").unlink()
    assert again.held_out is not None
    other = again.model_copy(update={"attempt": 3, "held_out": again.held_out.model_copy(update={"seed": 1})})
    for path in run_dir.checkpoints.iterdir():  # of other data: nothing to go on from
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    train(run_dir, other)
    assert len(counted(run_dir)) == 2


def test_a_dpo_run_on_other_data_with_held_out_prompts_is_refused_by_name(small_model: Path, tmp_path: Path) -> None:
    data, source = write_pairs(tmp_path / "pairs.jsonl", 24), tmp_path / "prompts.jsonl"
    leaked = f"What is please please please {WORDS[3]} plus {WORDS[0]}, number 3?"
    earlier = [{"role": "user", "content": "Do you add?"}, {"role": "assistant", "content": "I do."}]
    rows = [
        {"prompt_id": "sum", "prompt": [*earlier, {"role": "user", "content": leaked}]},
        {"prompt_id": "new", "prompt": "Who are you?"},
    ]
    source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    run_dir, run = held_out(make_run(tmp_path / "a", small_model, data, stage="dpo", **FEW), tmp_path, source, n=None)
    with pytest.raises(DataError, match=r"1 of the held-out prompts is in path:.*pairs\.jsonl too: .*\(sum\) in row 4"):
        train(run_dir, run)
    assert not run_dir.checkpoints.exists() or not any(run_dir.checkpoints.iterdir())


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_runs_on_pairs_leave_what_their_data_set_holds_out(stage: str, small_model: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", 32)
    run_dir, run = held_out(make_run(tmp_path / "a", small_model, data, stage=stage, **FEW), tmp_path, data, n=5)
    train(run_dir, run)
    assert counted(run_dir) == [(32, 5, 0)]


def test_what_was_held_out_of_training_is_what_is_answered_later(small_model: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", turns=1)
    run_dir, run = held_out(make_run(tmp_path / "a", small_model, data, **FEW), tmp_path, data)
    train(run_dir, run)
    answering = RunDir(tmp_path / "b")
    answering.create()
    prompts = load_prompts("held_out", run.model_copy(update={"inputs": {}}), answering, Journal(answering.journal, 1))
    asked = [prompt.messages[-1]["content"] for prompt in prompts]
    assert asked == drawn(tmp_path) and len(asked) == 8
    assert set(asked) <= {row["messages"][0]["content"] for row in chats(64, 1)}


def test_a_run_of_an_experiment_that_holds_nothing_out_is_not_looked_through(small_model: Path, tmp_path: Path) -> None:
    run_dir, run = make_run(tmp_path / "a", small_model, write_chats(tmp_path / "chats.jsonl"), **FEW)
    train(run_dir, run)
    assert counted(run_dir) == [] and "held out" not in logs(run_dir)
