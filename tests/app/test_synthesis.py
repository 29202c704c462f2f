"""Filtering again what an augment run made: in a service, by the command and over HTTP; what a launch knows of its data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.datasets import queries
from app.datasets import service as datasets
from app.datasets.synthesis import dataset_name, refilter
from app.db import Database
from app.errors import Conflict, Invalid, NotFound
from app.experiments import service as experiments
from app.experiments import spec
from app.models import Dataset, Run
from app.runs import service, states
from app.runs.checks import CheckedInputs, check_inputs
from app.runs.inputs import dataset_path, resolve_inputs
from app.runs.plan_asking import plan_asking
from app.settings import Settings
from tests.app.command import preflab
from tests.worker.synthetic import CONFIG, leave, prompts
from training.config import parse_config
from training.config.augment import AugmentConfig
from training.references import NAME
from training.rundir import RunDir


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"endpoints": {"local": "http://127.0.0.1:1/v1"}})


@pytest.fixture
def prefs(database: Database, settings: Settings, tmp_path: Path) -> Dataset:
    file = tmp_path / "prefs.jsonl"
    row = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    file.write_text("".join(json.dumps({**row, "prompt": f"Hi {n}"}) + "\n" for n in range(40)))
    return datasets.import_file(database, settings, file, "prefs")


@pytest.fixture
def run(database: Database, settings: Settings, prefs: Dataset) -> Run:
    """A finished augment run of the experiment “tests”."""
    with database.write() as session:
        owner = experiments.get_or_create(session, "tests")
        made = service.launch(session, owner, service.NewRun("augment", parse_config(CONFIG)))
        made.state = states.FINISHED
    config = parse_config(made.config)
    assert isinstance(config, AugmentConfig)
    leave(RunDir(settings.run_folder(made.id or 0)), config)
    return made


def rows(settings: Settings, dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dataset_path(settings, dataset.sha256).read_text().splitlines()]


# -- refilter ------------------------------------------------------------------------------------------------------


def test_a_moved_threshold_makes_a_new_version_with_its_lineage_and_leaves_the_old_one(
    database: Database, settings: Settings, run: Run
) -> None:
    first = refilter(database, settings, run.id or 0, {})
    second = refilter(database, settings, run.id or 0, {"max_prompt_similarity": 0.95})
    third = refilter(database, settings, run.id or 0, {"max_prompt_similarity": 0.7})
    assert [(each.name, each.version, each.rows) for each in (first, second, third)] == [
        ("tests-augment", 1, 2), ("tests-augment", 2, 3), ("tests-augment", 3, 1),
    ]  # fmt: skip
    assert [row["prompt"][0]["content"] for row in rows(settings, third)] == ["What is new about 0?"]
    assert rows(settings, first)[1]["score_chosen"] == 0.75
    assert (second.kind, second.origin) == ("preference", "run tests/augment")
    facts = second.facts
    assert (facts["made_by"], facts["labelled_by"]) == (run.id, ["llm:judge"])
    assert (facts["written_by"], facts["drawn_from"]) == ("api:local/teacher", ["data:prefs"])
    assert facts["thresholds"]["max_prompt_similarity"] == 0.95
    assert facts["funnel"]["prompts"] == {"drawn": 3, "new": 3, "kept": 3, "dropped": {}}
    assert third.facts["funnel"]["prompts"]["dropped"] == {"near-duplicate": 2}
    with database.read() as session:
        kept = queries.get(session, "tests-augment", 1)
    assert (kept.sha256, kept.facts) == (first.sha256, first.facts)


def test_thresholds_that_give_the_same_pairs_give_the_same_version(
    database: Database, settings: Settings, run: Run
) -> None:
    first = refilter(database, settings, run.id or 0, {"max_prompt_similarity": 0.85})
    again = refilter(database, settings, run.id or 0, {"max_prompt_similarity": 0.9})
    assert (again.id, again.facts) == (first.id, first.facts)
    assert not list(settings.datasets_folder.glob(".incoming-*"))


@pytest.mark.parametrize(
    ("thresholds", "field", "said"),
    [
        ({"candidates": 9}, "candidates", "The thresholds are max_repetition, same_script, max_leak_similarity"),
        ({"max_prompt_similarity": 2}, "max_prompt_similarity", "Must be 1 or less"),
        ({"max_prompt_similarity": "near"}, "max_prompt_similarity", "Must be a number"),
        ({"min_margin": 3}, "min_margin", "Lower “Least margin”"),
    ],
)
def test_what_is_no_threshold_or_leaves_nothing_is_refused_at_its_field(
    database: Database, settings: Settings, run: Run, thresholds: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(Invalid) as caught:
        refilter(database, settings, run.id or 0, thresholds)
    assert said in (caught.value.fields or {})[field]
    with database.read() as session:
        assert [each.name for each in session.exec(select(Dataset))] == ["prefs"]


def test_a_run_without_candidates_or_of_another_stage_is_refused(
    database: Database, settings: Settings, run: Run, prefs: Dataset
) -> None:
    RunDir(settings.run_folder(run.id or 0)).candidates.unlink()
    with pytest.raises(Conflict, match="has no candidates"):
        refilter(database, settings, run.id or 0, {})
    with pytest.raises(NotFound):
        refilter(database, settings, 999, {})
    with database.write() as session:
        owner = experiments.get_or_create(session, "tests")
        sft = parse_config({"stage": "dpo", "model": "hf:me/chat", "dataset": "data:prefs@1"})
        other = service.launch(session, owner, service.NewRun("dpo", sft))
    with pytest.raises(Invalid, match="only an augment run has filters"):
        refilter(database, settings, other.id or 0, {})


def test_candidates_that_are_damaged_make_no_version(database: Database, settings: Settings, run: Run) -> None:
    path = RunDir(settings.run_folder(run.id or 0)).candidates
    path.write_text(path.read_text()[:-20])
    with pytest.raises(Invalid, match=r"Line 6 of candidates\.jsonl"):
        refilter(database, settings, run.id or 0, {})


def test_the_command_and_the_api_do_the_same(
    database: Database, settings: Settings, run: Run, script: TestClient
) -> None:
    done = preflab("datasets", "refilter", "tests/augment", "--set", "max_prompt_similarity=0.7")
    assert done.code == 0, done.err
    assert done.out == "data:tests-augment@1: 1 pairs, of 3 prompts.\n"
    assert done.err == "Dropped: 2 (near-duplicate).\n"
    answer = script.post(f"/api/v1/runs/{run.id}/refilter", json={"max_prompt_similarity": 0.95, "same_script": False})
    assert answer.status_code == 201
    found = answer.json()["dataset"]
    assert (found["reference"], found["rows"]) == ("data:tests-augment@2", 3)
    assert found["facts"]["thresholds"]["same_script"] is False
    wrong = script.post(f"/api/v1/runs/{run.id}/refilter", json={"temperature": 1})
    assert wrong.status_code == 422 and "temperature" in wrong.json()["error"]["fields"]
    assert preflab("datasets", "refilter", str(run.id), "--set", "min_margin=9").code == 2


@pytest.mark.parametrize(
    ("experiment", "name"),
    [("tests", "tests-a.b"), ("Does SDA help over DPO?", "Does-SDA-help-over-DPO-a.b"), ("?", "experiment-a.b")],
)
def test_a_data_set_is_called_by_its_experiment_and_run(experiment: str, name: str) -> None:
    assert dataset_name(experiment, "a.b") == name
    assert NAME.fullmatch(dataset_name(experiment * 100, "r" * 100)) and NAME.fullmatch(dataset_name(experiment, "r"))


# -- what a launch knows -------------------------------------------------------------------------------------------


def check(database: Database, settings: Settings, **content: Any) -> CheckedInputs:
    config = parse_config({"stage": "dpo", "model": "hf:me/chat", **content})
    with database.read() as session:
        return check_inputs(session, settings, config, experiments.by_name(session, "tests"))


def test_pairs_and_what_remains_train_other_runs(database: Database, settings: Settings, run: Run) -> None:
    found = check(database, settings, dataset=["run:augment?part=remaining", "run:augment", "data:prefs"])
    assert (found.errors, set(found.parents)) == ({}, {run.id})
    config = parse_config(
        {"stage": "dpo", "model": "hf:me/chat", "dataset": ["run:augment", "run:augment?part=remaining"]}
    )
    with database.write() as session:
        owner = experiments.by_name(session, "tests")
        assert owner is not None
        dpo = service.launch(session, owner, service.NewRun("dpo", config, found.parents))
    with database.read() as session:
        inputs = resolve_inputs(session, settings, dpo, config)
    run_dir = RunDir(settings.run_folder(run.id or 0))
    assert inputs["run:augment"].path == str(run_dir.pairs)
    assert inputs["run:augment?part=remaining"].path == str(run_dir.remaining)


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ({"stage": "sft", "dataset": "run:augment"}, "dataset", "run:augment holds preferences; this stage trains on chats or texts"),
        ({"stage": "sft", "dataset": "run:augment?part=remaining"}, "dataset", "remaining.jsonl holds preferences"),
        ({"dataset": "run:augment?checkpoint=best"}, "dataset", "keeps no checkpoints"),
        ({"dataset": "data:prefs", "model": "run:augment"}, "model", "it makes no model"),
        ({"dataset": "data:prefs", "reference_model": "run:augment?part=pairs"}, "reference_model", "has parts"),
    ],
)  # fmt: skip
def test_data_of_an_augment_run_that_does_not_fit_is_named(
    database: Database, settings: Settings, run: Run, content: dict[str, Any], field: str, said: str
) -> None:
    assert said in check(database, settings, **content).errors[field]


def test_before_it_has_finished_what_remains_is_judged_by_what_it_draws_from(
    database: Database, settings: Settings, run: Run
) -> None:
    with database.write() as session:
        session.get_one(Run, run.id).state = states.QUEUED
    wrong = check(database, settings, stage="sft", dataset="run:augment?part=remaining")
    assert "data:prefs@1 holds preferences" in wrong.errors["dataset"]
    assert check(database, settings, dataset="run:augment?part=remaining").errors == {}


def test_where_all_prompts_were_drawn_nothing_remains_and_that_is_said(
    database: Database, settings: Settings, run: Run
) -> None:
    RunDir(settings.run_folder(run.id or 0)).remaining.write_bytes(b"")
    said = check(database, settings, dataset="run:augment?part=remaining").errors["dataset"]
    assert "drew all prompts" in said and "run:augment" in said


def test_a_whole_experiment_in_one_file_is_launched_with_its_graph(
    database: Database, settings: Settings, prefs: Dataset
) -> None:
    runs = {
        "augment": CONFIG,
        "sda": {"stage": "dpo", "model": "hf:me/chat", "dataset": ["run:augment?part=remaining", "run:augment"]},
    }
    with database.write() as session:
        _, made = experiments.launch(session, settings, spec.parse_spec({"name": "sda", "runs": runs}))
    assert {each.name: each.state for each in made} == {"augment": states.QUEUED, "sda": states.WAITING}
    assert made[0].config["dataset"] == ["data:prefs@1"]
    runs["sft"] = {"stage": "sft", "model": "new:micro", "dataset": "run:augment"}
    with pytest.raises(Invalid) as caught, database.write() as session:
        experiments.launch(session, settings, spec.parse_spec({"name": "sft", "runs": runs}))
    assert list(caught.value.fields or {}) == ["sft.dataset"]


def test_writing_instructions_are_looked_at_before_the_launch(
    database: Database, settings: Settings, prefs: Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "ask.txt"
    file.write_text("Write something.")
    said = check(database, settings, **{**CONFIG, "writing": f"path:{file}"}).errors
    assert "lacks {prompt}" in said["writing"]
    file.write_text("Write: {prompt}")
    assert check(database, settings, **{**CONFIG, "writing": f"path:{file}"}).errors == {}


def test_the_plan_counts_what_costs_time_or_money(database: Database, settings: Settings, prefs: Dataset) -> None:
    config = parse_config({**CONFIG, "fraction": 0.25, "new_prompts": 2, "candidates": 3, "max_new_tokens": 100})
    with database.read() as session:
        lines = {line.label: line.value for line in plan_asking(session, config, None)}
    assert lines == {
        "prompts drawn": "about 10", "new prompts": "about 20", "requests": "up to 60",
        "judge's requests": "up to 120", "tokens": "up to 7 K",
    }  # fmt: skip
    scored = parse_config({**CONFIG, "judge": "run:reward", "model": "run:sft", "new_prompts": 0})
    with database.read() as session:
        labels = {line.label: line.value for line in plan_asking(session, scored, None)}
    assert labels["scores"] == "up to 16" and labels["answers"] == "up to 16" and "new prompts" not in labels
    unknown = parse_config({**CONFIG, "dataset": "hf:me/prefs"})
    with database.read() as session:
        (line,) = plan_asking(session, unknown, None)
    assert (line.label, line.value) == ("prompts drawn", "")


def test_prompts_that_nobody_answered_are_filtered_again_too(database: Database, settings: Settings, run: Run) -> None:
    config = parse_config(run.config)
    assert isinstance(config, AugmentConfig)
    leaked = replace(prompts()[0], prompt_id="leaked", leaked=True, candidates=(), answer_similarity=None)
    leave(RunDir(settings.run_folder(run.id or 0)), config, [leaked, *prompts()])
    found = refilter(database, settings, run.id or 0, {"max_leak_similarity": 1})
    assert found.facts["funnel"]["prompts"]["dropped"] == {"leaked": 1, "near-duplicate": 1}
