"""A finished augment run's pairs are a version of a data set as it finishes, or not at all; and other runs train on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from app.datasets import service as datasets
from app.db import Database
from app.experiments import service as experiments
from app.experiments import spec
from app.models import Dataset, Run
from app.runs import lease, service, states
from app.runs.inputs import dataset_path
from app.settings import Settings
from tests.training.augmenting.making import ASK, make_judge, make_writer, sums, write_lines
from tests.worker.helpers import claim, events, row, scripted
from tests.worker.synthetic import CONFIG, SCRIPT
from training.rundir import RunDir
from worker.devices import CPU
from worker.launcher import Attempt

QUICK = {"beat_seconds": 0.05, "lease_seconds": 60.0, "threads": 1, "endpoints": {"local": "http://127.0.0.1:1/v1"}}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update=QUICK)


def launched(database: Database, settings: Settings, runs: dict[str, Any], **more: Any) -> dict[str, int]:
    with database.write() as session:
        _, made = experiments.launch(session, settings, spec.parse_spec({"name": "tests", "runs": runs, **more}))
    return {run.name: run.id or 0 for run in made}


@pytest.fixture
def augment(any_database: Database, settings: Settings) -> int:
    file = write_lines(settings.home / "prefs.jsonl", [{"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}])
    datasets.import_file(any_database, settings, file, "prefs")
    return launched(any_database, settings, {"augment": CONFIG})["augment"]


def work(database: Database, settings: Settings, script: str) -> Run:
    run = claim(database)
    assert run is not None
    Attempt(database, settings, run, CPU, lambda: False, scripted(script)).run()
    return row(database, run.id or 0)


def made(database: Database) -> list[Dataset]:
    with database.read() as session:
        return list(session.exec(select(Dataset).where(Dataset.name != "prefs")))


def test_pairs_become_a_version_that_says_where_it_comes_from(
    any_database: Database, settings: Settings, augment: int
) -> None:
    assert work(any_database, settings, SCRIPT).state == states.FINISHED
    (found,) = made(any_database)
    assert (found.name, found.version, found.kind, found.rows) == ("tests-augment", 1, "preference", 2)
    assert found.origin == "run tests/augment"
    assert (found.facts["made_by"], found.facts["labelled_by"]) == (augment, ["llm:judge"])
    assert found.facts["thresholds"]["max_prompt_similarity"] == 0.9
    assert found.facts["funnel"]["prompts"]["dropped"] == {"near-duplicate": 1}
    pairs = RunDir(settings.run_folder(augment)).pairs.read_bytes()
    assert dataset_path(settings, found.sha256).read_bytes() == pairs
    assert not list(settings.datasets_folder.glob(".incoming-*"))


def test_the_same_pairs_after_a_retry_are_the_same_version(
    any_database: Database, settings: Settings, augment: int
) -> None:
    work(any_database, settings, SCRIPT)
    (first,) = made(any_database)
    with any_database.write() as session:
        session.get_one(Run, augment).state = states.STOPPED
    with any_database.write() as session:
        service.retry(session, augment)
    assert work(any_database, settings, SCRIPT).state == states.FINISHED
    (again,) = made(any_database)
    assert (again.id, again.version) == (first.id, 1)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("pass", "its pairs cannot be read"),
        (SCRIPT + 'run_dir.pairs.write_text(\'{"prompt": "Hi"}\\n\')', "Its pairs cannot be taken in: "),
        (SCRIPT + "run_dir.funnel.write_text('{')", "its pairs cannot be read"),
    ],
    ids=["nothing", "rows that are no pairs", "a torn funnel"],
)
def test_outputs_that_are_not_whole_fail_the_run_and_make_no_data_set(
    any_database: Database, settings: Settings, augment: int, script: str, said: str
) -> None:
    found = work(any_database, settings, script)
    assert found.state == states.FAILED and found.error is not None
    assert found.error["code"] == "incomplete" and said in found.error["message"]
    assert made(any_database) == []
    assert not list(settings.datasets_folder.glob(".incoming-*"))


def test_a_run_that_was_stopped_or_given_away_meanwhile_makes_no_data_set(
    any_database: Database, settings: Settings, augment: int
) -> None:
    run = claim(any_database)
    assert run is not None
    with any_database.write() as session:
        assert lease.stopped(session, augment, run.attempt)
    Attempt(any_database, settings, run, CPU, lambda: False, scripted(SCRIPT)).run()
    assert row(any_database, augment).state == states.STOPPED
    assert made(any_database) == []
    assert not list(settings.datasets_folder.glob(".incoming-*"))


# -- whole experiments ---------------------------------------------------------------------------------------------

TRAINING = {
    "max_length": 64,
    "batch_size": 4,
    "precision": "fp32",
    "learning_rate": 1e-3,
    "max_steps": 2,
    "sample_count": 0,
}


@pytest.mark.long
def test_dpo_trains_on_synthetic_pairs_beside_the_data_or_in_place_of_what_was_drawn(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    """With real trainers: augment, then DPO on both ways of combining, and on the version of the data set."""
    writer = make_writer(tmp_path / "writer")
    judge = make_judge(tmp_path / "judge", writer)
    (tmp_path / "ask.txt").write_text(ASK)
    datasets.import_file(database, settings, write_lines(tmp_path / "sums.jsonl", sums()), "sums")
    augment = {
        "stage": "augment", "model": f"path:{writer}", "dataset": "data:sums", "judge": f"path:{judge}", "fraction": 0.4,
        "new_prompts": 2, "candidates": 3, "temperature": 1.5, "max_new_tokens": 40, "max_prompt_similarity": 1.0,
        "max_answer_similarity": 1.0, "max_leak_similarity": 1.0, "writing": f"path:{tmp_path / 'ask.txt'}",
    }  # fmt: skip
    dpo = {"stage": "dpo", "model": f"path:{writer}", **TRAINING, "eval_fraction": 0.0}
    keys = launched(
        database, settings,
        {
            "augment": augment,
            "beside": {**dpo, "dataset": ["data:sums", "run:augment"]},
            "instead": {**dpo, "dataset": ["run:augment?part=remaining", "run:augment"]},
        },
        held_out={"dataset": "data:sums", "n": 6},
    )  # fmt: skip
    while (run := claim(database)) is not None:
        Attempt(database, settings, run, CPU).run()
    told = {name: (row(database, key).state, row(database, key).error) for name, key in keys.items()}
    assert told == dict.fromkeys(keys, (states.FINISHED, None))
    with database.read() as session:
        (found,) = session.exec(select(Dataset).where(Dataset.name == "tests-augment")).all()
    run_dir = RunDir(settings.run_folder(keys["augment"]))
    pairs, remaining = (len(path.read_bytes().splitlines()) for path in (run_dir.pairs, run_dir.remaining))
    assert found.rows == pairs > 0 and remaining > 0
    logs = {
        name: "\n".join(json.loads(event.body)["message"] for event in events(database, key, "log"))
        for name, key in keys.items()
    }
    # In its own data set what is held out is taken out; in the synthetic pairs, and what remains, there is none of it.
    taken = {name: text.count("taken out, since") for name, text in logs.items()}
    assert taken == {"augment": 1, "beside": 1, "instead": 0}
    assert f"run:augment: none of its {pairs:,} rows has a held-out prompt" in logs["beside"]
    assert f"run:augment?part=remaining: none of its {remaining:,} rows has a held-out prompt" in logs["instead"]
    assert f"{pairs + remaining:,} pairs to train on" in logs["instead"]
