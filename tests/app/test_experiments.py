"""Experiment files: checked whole, launched whole or not at all; references make the graph."""

import re
from pathlib import Path

import pytest
from sqlmodel import select

from app.errors import Conflict, Invalid, NotFound
from app.experiments import service, spec
from app.models import Experiment, Run
from app.runs import inputs, lease
from app.runs import service as runs
from training.config import parse_config

SFT = {"stage": "sft", "model": "new:tiny", "dataset": "path:chats.jsonl"}


@pytest.fixture
def chats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text('{"text": "hello"}\n')


def launch(database, settings, content):
    with database.write() as session:
        return service.launch(session, settings, spec.parse_spec(content))


def test_runs_that_name_others_wait_for_them_whatever_their_order_in_the_file(database, settings, chats):
    content = {"name": "e", "runs": {"b": {**SFT, "model": "run:a"}, "c": {**SFT, "model": "run:b"}, "a": SFT}}
    _, made = launch(database, settings, content)
    assert [(run.name, run.state) for run in made] == [("a", "queued"), ("b", "waiting"), ("c", "waiting")]


def test_a_wrong_field_in_one_run_launches_nothing_and_is_named(database, settings, chats):
    content = {"name": "e", "runs": {"a": SFT, "b": {**SFT, "epochs": -1}}}
    with pytest.raises(Invalid) as caught:
        launch(database, settings, content)
    assert caught.value.fields == {"b.epochs": "Must be above 0. For example: 1."}
    with database.read() as session:
        assert session.exec(select(Run)).all() == []
        assert session.exec(select(Experiment)).all() == []


def test_an_input_that_is_not_there_launches_nothing(database, settings, chats):
    content = {"name": "e", "runs": {"a": SFT, "b": {**SFT, "dataset": "data:gone"}}}
    with pytest.raises(Invalid) as caught:
        launch(database, settings, content)
    assert caught.value.fields == {
        "b.dataset": "There is no data set “gone”. Upload it first, or choose one from the list."
    }
    with database.read() as session:
        assert session.exec(select(Run)).all() == []


def test_a_circle_is_refused_by_name():
    content = {"name": "e", "runs": {"a": {**SFT, "model": "run:b"}, "b": {**SFT, "model": "run:a"}}}
    with pytest.raises(Invalid, match="in a circle: a, b"):
        spec.plan(spec.parse_spec(content))


def test_an_experiments_name_is_taken_once(database, settings, chats):
    launch(database, settings, {"name": "e", "runs": {"a": SFT}})
    with pytest.raises(Conflict, match="an experiment “e” already"):
        launch(database, settings, {"name": "e", "runs": {"a": SFT}})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [", "not YAML in line 1"),
        ("just a word", "a mapping with name and runs"),
        ("name: x\nruns: {}", "runs:"),
        ("name: x\nruns: {a: {stage: sft}}\nowner: me", "owner: There is no such setting"),
        ("name: x\nruns: {a: {stage: ppo}}", "There is no stage “ppo”"),
        ("name: x\nruns: {'a b': {stage: sft}}", "A run's name has letters"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(Invalid, match=sentence):
        spec.plan(spec.parse_yaml(text))


def test_a_file_that_is_neither_preset_nor_readable_says_which_presets_there_are():
    with pytest.raises(NotFound) as caught:
        spec.load("/no/such/file.yaml")
    assert "Presets:" in caught.value.hint


@pytest.mark.parametrize("name", spec.presets())
def test_every_preset_is_a_valid_experiment(name):
    assert spec.plan(spec.load(name))


def test_a_run_of_another_experiment_is_found_by_its_full_name_or_its_id(database, settings, chats):
    _, (parent,) = launch(database, settings, {"name": "first", "runs": {"a": SFT}})
    for reference in ("run:first/a", f"run:{parent.id}"):
        content = {"name": f"next-{len(reference)}", "runs": {"b": {**SFT, "model": reference}}}
        _, (child,) = launch(database, settings, content)
        with database.read() as session:
            assert [run.id for run in runs.graph.parents(session, child.id)] == [parent.id]


def test_a_failed_parent_must_be_resumed_before_it_is_built_on(database, settings, chats):
    _, (parent,) = launch(database, settings, {"name": "first", "runs": {"a": SFT}})
    with database.write() as session:
        runs.stop(session, parent.id)
    with pytest.raises(Invalid, match="“a” is stopped: resume or retry it first"):
        launch(database, settings, {"name": "next", "runs": {"b": {**SFT, "model": "run:first/a"}}})


def test_a_checkpoint_that_a_finished_run_does_not_keep_is_refused_with_those_it_keeps(database, settings, chats):
    _, (parent,) = launch(database, settings, {"name": "first", "runs": {"a": SFT}})
    for step in (20, 40):
        (settings.run_folder(parent.id) / f"checkpoints/step-{step:06d}").mkdir(parents=True)
    with database.write() as session:
        lease.claim_next(session, {})
        assert lease.finish(session, parent.id, 1)
    with pytest.raises(Invalid, match=r"“first/a” keeps no checkpoint of step 30. It has: 20, 40."):
        launch(database, settings, {"name": "next", "runs": {"b": {**SFT, "model": "run:first/a?checkpoint=30"}}})
    for wanted, weights in (("20", "step-000020"), ("last", "step-000040"), ("best", None)):
        model = f"run:first/a?checkpoint={wanted}"
        _, (child,) = launch(database, settings, {"name": f"from-{wanted}", "runs": {"b": {**SFT, "model": model}}})
        with database.read() as session:
            found = inputs.resolve_inputs(session, settings, child, parse_config(child.config))[model]
        assert found.path == str(settings.run_folder(parent.id) / "model")
        assert (found.weights and found.weights.rpartition("/")[2]) == weights


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.jsonl", "link.jsonl", "folder/../../outside.jsonl"])
def test_a_path_outside_the_allowed_folders_is_refused(database, settings, tmp_path, chats, path):
    (tmp_path.parent / "outside.jsonl").write_text("{}")
    (tmp_path / "link.jsonl").symlink_to(tmp_path.parent / "outside.jsonl")
    with pytest.raises(Invalid, match="outside the folders that may be read"):
        launch(database, settings, {"name": "e", "runs": {"a": {**SFT, "dataset": f"path:{path}"}}})


def test_a_service_that_starts_in_the_root_folder_may_read_no_path_unless_one_is_named(settings, monkeypatch):
    monkeypatch.chdir("/")
    assert settings.model_copy(update={"allowed_paths": []}).path_roots == []
    assert inputs.allowed_path(settings.model_copy(update={"allowed_paths": []}), "etc/passwd") is None


def test_every_example_of_the_documentation_is_a_valid_experiment():
    page = (Path(__file__).resolve().parents[2] / "docs" / "experiments.md").read_text()
    files = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert [[run.config.stage for run in spec.plan(spec.parse_yaml(text))] for text in files] == [
        ["sft", "sft"],
        ["sft", "dpo", "reward"],
        ["sft", "respond", "dpo", "reward", "respond", "respond", "judge"],
    ]


@pytest.mark.parametrize(("field", "value"), [("baseline", "instrukt"), ("primary_judge", "rewad")])
def test_a_baseline_or_judge_that_no_run_of_the_file_makes_is_a_misspelling(field, value):
    content = {
        "name": "x",
        "baseline": "sft",
        "primary_judge": "reward",
        "runs": {
            "sft": {"stage": "sft", "model": "new:micro", "dataset": "data:chats"},
            "rm": {"stage": "reward", "model": "run:sft", "dataset": "data:prefs"},
            "answers": {"stage": "respond", "model": "run:sft", "prompts": "data:prompts"},
            "judge": {"stage": "judge", "judge": "run:rm"},
        },
    }
    assert len(spec.plan(spec.parse_spec(content))) == 4
    with pytest.raises(Invalid) as caught:
        spec.plan(spec.parse_spec({**content, field: value}))
    assert list(caught.value.fields) == [field] and value in caught.value.fields[field]
