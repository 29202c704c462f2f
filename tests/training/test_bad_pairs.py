"""Pairs and references that cannot be used: counted and named before training, never dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.small import logs, make_model, make_run, metrics, pairs, records, train
from training.errors import DataError, InputError, ModelError
from training.journal import Record
from training.rundir import RunDir
from training.tokenizer import save_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "qwen2")


def run_of(tmp_path: Path, model: Path, rows: list[dict[str, Any]], stage: str = "dpo", **settings: Any) -> RunDir:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_dir, run = make_run(tmp_path / "run", model, data, stage=stage, max_steps=1, **settings)
    train(run_dir, run)
    return run_dir


def warnings(run_dir: RunDir) -> list[str]:
    found: list[Record] = records(run_dir, "log")
    return [each.body["message"] for each in found if each.body["level"] == "warning"]


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_pairs_that_teach_nothing_are_left_out_and_named_by_their_rows(stage: str, model: Path, tmp_path: Path) -> None:
    rows = pairs(20)
    rows[3]["rejected"] = rows[3]["chosen"] + "\n"
    rows[8]["rejected"] = rows[8]["chosen"]
    rows[5]["chosen"] = "  "
    rows[7] = {
        "chosen": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "user", "content": "B?"}, {"role": "assistant", "content": "No."}],
    }
    run_dir = run_of(tmp_path, model, rows, stage)
    name = f"path:{tmp_path / 'pairs.jsonl'}"
    assert warnings(run_dir)[:3] == [
        f"{name}: 2 pairs were left out, since chosen and rejected say the same (rows 4, 9).",
        f"{name}: 1 pair was left out, since an answer is empty (row 6).",
        f"{name}: 1 pair was left out, since chosen and rejected answer different prompts (row 8).",
    ]
    assert "14 pairs to train on" in logs(run_dir)
    assert "2 are held back" in logs(run_dir)
    told = [each.body.get("message", "") if each.kind == "log" else each.kind for each in records(run_dir)]
    assert told.index("metrics") > told.index(warnings(run_dir)[2]), "before training"


def test_a_file_of_nothing_but_such_pairs_is_refused(model: Path, tmp_path: Path) -> None:
    rows = [row | {"rejected": row["chosen"]} for row in pairs(4)]
    with pytest.raises(DataError, match="holds only pairs with nothing to learn"):
        run_of(tmp_path, model, rows)


def test_prompts_that_leave_no_room_are_counted_and_answers_that_are_cut_too(model: Path, tmp_path: Path) -> None:
    rows = pairs(12)
    rows[2]["prompt"] = "word " * 300
    rows[4]["chosen"] = "word " * 300
    said = warnings(run_of(tmp_path, model, rows))
    assert "1 pair was left out: the prompt leaves no room for an answer in 128 tokens." in said
    assert any(each.startswith("1 pair was longer than 128 tokens and cut at the end") for each in said)


def test_where_no_prompt_leaves_room_the_run_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Nothing of the data is to be learnt within 16 tokens"):
        run_of(tmp_path, model, pairs(6), max_length=16)


def test_no_prompt_is_on_both_sides_of_the_split(model: Path, tmp_path: Path) -> None:
    rows = [row | {"prompt": f"Question {index // 4}?"} for index, row in enumerate(pairs(40))]
    run_dir = run_of(tmp_path, model, rows, eval_fraction=0.25, sample_count=10)
    assert metrics(run_dir)[0, "eval_loss"]
    asked = {record.body["prompt"] for record in records(run_dir, "sample")}
    assert 1 <= len(asked) <= 3, "each prompt that is held back is asked once"


def test_a_reference_with_another_tokenizer_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other")
    save_tokenizer(train_tokenizer(["some other words than those of the sums"] * 50, 300), other)
    with pytest.raises(ModelError, match="give other token ids: their vocabularies") as caught:
        run_of(tmp_path, model, pairs(8), reference_model=f"path:{other}")
    assert caught.value.failure.field == "reference_model"


def test_a_fresh_reference_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other random weights") as caught:
        run_of(tmp_path, model, pairs(8), reference_model="new:micro")
    assert caught.value.failure.field == "reference_model"


def test_chats_are_no_pairs(model: Path, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]}
    with pytest.raises(DataError, match="holds chats; this stage trains on preferences"):
        run_of(tmp_path, model, [chat] * 3)
