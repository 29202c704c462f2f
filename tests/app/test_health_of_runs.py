"""What is said of runs that really were: one that collapses, one that saturates, one that is well."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from app.runs.health import Finding, read_health
from app.runs.series import Metrics, curves
from tests.training.small import WORDS, make_model, make_run, metrics, records, train, write_pairs


def sums(count: int, mislabelled: float, seed: int) -> list[dict[str, Any]]:
    """Questions with a right and a wrong answer that differ in one word; a share of the pairs is the wrong way round."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        a, b, off = draw.randrange(6), draw.randrange(6), draw.randrange(1, 6)
        answers = [f"It is {WORDS[a + b]}.", f"It is {WORDS[(a + b + off) % 13]}."]
        if draw.random() < mislabelled:
            answers.reverse()
        question = f"What is {WORDS[a]} plus {WORDS[b]}, number {index}?"
        rows.append({"prompt": question, "chosen": answers[0], "rejected": answers[1]})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the sums: it finds the right answers likely."""
    place = tmp_path_factory.mktemp("sft")
    model = make_model(place / "model", tie_word_embeddings=True)
    chats = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}]}
        for row in sums(200, 0, seed=0)
    ]
    settings: dict[str, Any] = {"max_steps": 150, "batch_size": 16, "learning_rate": 1e-2, "eval_every": 150}
    run_dir, run = make_run(place / "run", model, write(place / "chats.jsonl", chats), **settings)
    train(run_dir, run)
    assert metrics(run_dir)[150, "eval_loss"] < 0.1
    return run_dir.model


def said_of(folder: Path, model: Path, data: Path, held_back: int, **settings: Any) -> dict[str, Finding]:
    """The findings on a dpo run, by title."""
    run_dir, run = make_run(folder, model, data, stage="dpo", eval_fraction=0.2, save_every=1000, **settings)
    train(run_dir, run)
    points = [
        Metrics(each.attempt, each.time, each.step or 0, each.body["values"]) for each in records(run_dir, "metrics")
    ]
    return {each.title: each for each in read_health("dpo", run.config, curves(points), held_back)}


def test_a_run_that_makes_the_chosen_answers_unlikely_is_warned_of_displacement(sft: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", sums(200, 0, seed=1))
    said = said_of(tmp_path / "run", sft, data, 40, max_steps=60, batch_size=16, learning_rate=1e-2, eval_every=5)
    found = said["Likelihood displacement"]
    assert (found.level, found.metric) == ("warning", "eval_logp_chosen")
    assert "lower learning_rate (0.01)" in found.advice and "beta (0.1)" in found.advice


def test_a_run_that_ranks_every_pair_right_is_told_that_it_is_saturated(sft: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", tie_word_embeddings=True)
    data = write_pairs(tmp_path / "pairs.jsonl", 60)  # the longer answer is the better one: easy
    said = said_of(tmp_path / "run", model, data, 12, max_steps=80, beta=0.5, eval_every=5)
    assert said["Saturated"].level == "note"
    assert "ranked right to 100 %" in said["Saturated"].sentence
    assert "Likelihood displacement" not in said


def test_a_run_that_is_well_is_told_so_and_nothing_else(sft: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", sums(300, 0.25, seed=2))
    said = said_of(
        tmp_path / "run", sft, data, 60, max_steps=80, batch_size=16, learning_rate=2e-4, eval_every=8, sample_count=4,
        sample_every=20,
    )  # fmt: skip
    assert {each.level for each in said.values()} == {"good"}
    assert said.keys() == {"Learns", "Ranks pairs it has not seen", "Chosen and rejected part", "Length is steady"}
