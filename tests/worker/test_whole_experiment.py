"""A whole experiment by its file: trained, answered, judged, and the table that says what the difference is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.datasets import service as datasets
from app.db import Database
from app.experiments import service as experiments
from app.experiments import spec
from app.runs import states
from app.settings import Settings
from app.winrates import tables
from tests.worker.helpers import claim, events, row
from training.config import parse_config
from worker.devices import CPU
from worker.launcher import Attempt

HELD_OUT = 12
TRAINING = {"max_length": 64, "batch_size": 8, "precision": "fp32", "learning_rate": 3e-3, "sample_count": 0}
CONTENT: dict[str, Any] = {
    "name": "does-it-help",
    "question": "Does DPO help?",
    "baseline": "sft",
    "primary_judge": "reward",
    "held_out": {"dataset": "data:prefs", "n": HELD_OUT, "seed": 3},
    "runs": {
        "sft": {"stage": "sft", "model": "new:micro", "dataset": "data:chats", "max_steps": 8, **TRAINING},
        "reward": {"stage": "reward", "model": "run:sft", "dataset": "data:prefs", "max_steps": 6,
                   **{k: v for k, v in TRAINING.items() if k != "sample_count"}},
        "dpo": {"stage": "dpo", "model": "run:sft", "dataset": "data:prefs", "max_steps": 6, "save_every": 3, **TRAINING},
        "ask-sft": {"stage": "respond", "model": "run:sft", "max_new_tokens": 12},
        "ask-dpo": {"stage": "respond", "model": "run:dpo", "max_new_tokens": 12, "checkpoints": "3, last"},
        "judge": {"stage": "judge", "judge": "run:reward"},
        "check": {"stage": "judge", "judge": "checker", "check": "regex"},
    },
}  # fmt: skip


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"beat_seconds": 0.05, "lease_seconds": 60.0, "threads": 1})


def chats(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say {n} twice."},
                {"role": "assistant", "content": f"{n} and {n}."},
            ]
        }
        for n in range(count)
    ]


def preferences(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt_id": str(n), "prompt": f"Count from {n} to {n + 2}.", "chosen": f"{n}, {n + 1}, {n + 2}.", "rejected": f"{n}."}
        for n in range(count)
    ]  # fmt: skip


def upload(database: Database, settings: Settings, name: str, rows: list[dict[str, Any]]) -> None:
    file = settings.home / f"{name}.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    datasets.import_file(database, settings, file, name)


def work_off(database: Database, settings: Settings) -> None:
    """Work on whatever is queued, with real trainers, until nothing is."""
    while (run := claim(database)) is not None:
        Attempt(database, settings, run, CPU).run()


def log(database: Database, run_id: int) -> str:
    return "\n".join(json.loads(event.body)["message"] for event in events(database, run_id, "log"))


@pytest.mark.long
def test_an_experiment_goes_from_its_file_to_the_table_and_judging_again_generates_nothing(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    upload(database, settings, "chats", chats(60))
    upload(database, settings, "prefs", preferences(80))
    with database.write() as session:
        experiment, runs = experiments.launch(session, settings, spec.parse_spec(CONTENT))
    keys = {run.name: run.id or 0 for run in runs}
    work_off(database, settings)
    found = {name: row(database, key) for name, key in keys.items()}
    told = {name: (run.state, (run.error or {}).get("message")) for name, run in found.items() if name != "check"}
    assert told == dict.fromkeys(told, (states.FINISHED, None))
    # These prompts have no reference, and a checker without one says so.
    assert found["check"].state == states.FAILED and "reference" in found["check"].error["message"]

    # Held out means held out: drawn once, and taken out of both trainings on the same data, with a count.
    assert f"{HELD_OUT} rows were taken out" in log(database, keys["dpo"])
    assert f"{HELD_OUT} rows were taken out" in log(database, keys["reward"])
    answers = (settings.run_folder(keys["ask-sft"]) / "outputs" / "responses.jsonl").read_bytes().splitlines()
    asked = {json.loads(line)["prompt"][0]["content"] for line in answers}
    assert len(asked) == HELD_OUT and asked < {each["prompt"] for each in preferences(80)}

    with database.read() as session:
        table = tables.winrate(session, experiment)
        ranking = tables.leaderboard(session, experiment)
    assert (table.judge, table.baseline, table.prompts) == ("reward:reward", "sft", "held_out")
    assert {each["model"]: each["n"] for each in table.rows} == {"dpo@3": HELD_OUT, "dpo@last": HELD_OUT}
    assert len(table.comparisons) == 1 and len(table.findings) == 3
    assert {each["games"] for each in ranking.rows} == {2 * HELD_OUT}

    # Another judge of the same answers: nothing is generated.
    with database.write() as session:
        config = parse_config({"stage": "judge", "judge": f"run:{keys['reward']}", "shown_as": "again"})
        again = experiments.launch_one(session, settings, config, experiment="does-it-help", name="judge-again")
    work_off(database, settings)
    assert row(database, again.id or 0).state == states.FINISHED
    with database.read() as session:
        second = tables.winrate(session, experiment, "reward:again")
    assert second.rows == table.rows
    generated = [each.name for each in (settings.run_folder(again.id or 0) / "outputs").iterdir()]
    assert generated == ["scores.jsonl"]


@pytest.mark.long
def test_a_run_on_a_data_set_with_held_out_prompts_fails_and_names_them(database: Database, settings: Settings) -> None:
    upload(database, settings, "chats", chats(60))
    upload(database, settings, "prefs", preferences(80))
    leaking = chats(20) + [
        {"messages": [{"role": "user", "content": each["prompt"]}, {"role": "assistant", "content": "No."}]}
        for each in preferences(80)
    ]
    upload(database, settings, "leaking", leaking)
    sft = {**CONTENT["runs"]["sft"], "dataset": ["data:chats", "data:leaking"]}
    content = {**CONTENT, "runs": {"sft": sft}, "baseline": None}
    with database.write() as session:
        _, (run,) = experiments.launch(session, settings, spec.parse_spec(content))
    work_off(database, settings)
    failed = row(database, run.id or 0)
    assert failed.state == states.FAILED and failed.error["field"] == "dataset"
    assert f"{HELD_OUT} of the held-out prompts are in data:leaking@1 too" in failed.error["message"]
