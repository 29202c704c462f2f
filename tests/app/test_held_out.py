"""What an experiment holds out: said in its file, checked and pinned at its launch, and found for its runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.datasets import service as datasets
from app.db import Database
from app.errors import Invalid
from app.experiments import service, spec
from app.experiments.held_out import check_held_out, held_out_input, held_out_of
from app.models import Experiment
from app.runs.inputs import dataset_path
from app.settings import Settings
from tests.app.command import preflab
from training.rundir import HeldOut

SFT = {"stage": "sft", "model": "new:tiny", "dataset": "path:chats.jsonl"}
PAIR = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
PROMPT = {"prompt_id": "1", "prompt": "Hi"}

Put = Callable[..., None]


@pytest.fixture
def put(database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Import rows as a data set; beside it lies a file of texts to train on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text('{"text": "hello"}\n')

    def do(name: str, *rows: dict[str, Any]) -> None:
        file = tmp_path / f"{name}-import.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        datasets.import_file(database, settings, file, name)

    return do


def launch(database: Database, settings: Settings, **content: Any) -> int:
    whole = spec.parse_spec({"name": "e", "runs": {"a": SFT}, **content})
    with database.write() as session:
        experiment, _ = service.launch(session, settings, whole)
        assert experiment.id is not None
        return experiment.id


def told(database: Database, settings: Settings, experiment_id: int) -> HeldOut | None:
    with database.read() as session:
        return held_out_of(session, settings, session.get_one(Experiment, experiment_id))


def wrong(section: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        spec.parse_spec({"name": "e", "runs": {"a": SFT}, "held_out": section})
    return caught.value.fields


# The file


@pytest.mark.parametrize(
    ("section", "field", "words"),
    [
        ({"n": 5}, "held_out.dataset", "Needed. For example: hf:"),
        ({"dataset": "run:a"}, "held_out.dataset", "“run:a” cannot stand here. Use one of: hf:"),
        ({"dataset": "data:a b"}, "held_out.dataset", "is no data: name"),
        ({"dataset": "data:a", "n": 0}, "held_out.n", "Must be 1 or more. For example: 500."),
        ({"dataset": "data:a", "n": "many"}, "held_out.n", "Must be a whole number. For example: 500."),
        ({"dataset": "data:a", "n": 2.5}, "held_out.n", "Must be a whole number."),
        ({"dataset": "data:a", "seed": -1}, "held_out.seed", "Must be 0 or more."),
        ({"dataset": "data:a", "similarity": 0}, "held_out.similarity", "Must be above 0."),
        ({"dataset": "data:a", "similarity": 1.1}, "held_out.similarity", "Must be 1 or less."),
        ({"dataset": "data:a", "similarity": float("nan")}, "held_out.similarity", "Must be a"),
        ({"dataset": "data:a", "split": "x"}, "held_out.split", "There is no such setting."),
        ("data:a", "held_out", "Write {dataset:"),
        ([], "held_out", "Write {dataset:"),
    ],
)
def test_each_wrong_field_is_named_as_in_the_file_with_what_would_be_right(
    section: Any, field: str, words: str
) -> None:
    fields = wrong(section)
    assert list(fields) == [field] and words in fields[field]


def test_all_wrong_fields_are_named_at_once() -> None:
    assert set(wrong({"n": 0, "seed": "x"})) == {"held_out.dataset", "held_out.n", "held_out.seed"}


def test_the_designs_own_example_is_right_and_a_section_may_be_left_out_or_empty() -> None:
    text = 'name: e\nheld_out: {dataset: "hf:me/prefs?split=train_prefs", n: 500, seed: 0}\nruns: {a: {stage: sft, '
    rest = 'model: "new:tiny", dataset: "data:chats"}}'
    found = spec.parse_yaml(text + rest).held_out
    assert found == spec.HeldOutSpec(dataset="hf:me/prefs?split=train_prefs", n=500, seed=0, similarity=0.85)
    assert spec.parse_spec({"name": "e", "runs": {"a": SFT}}).held_out is None
    assert spec.parse_spec({"name": "e", "runs": {"a": SFT}, "held_out": None}).held_out is None


def test_a_run_that_answers_held_out_prompts_needs_some() -> None:
    runs = {
        "usual": {"stage": "respond", "model": "hf:me/a"},
        "named": {"stage": "respond", "model": "hf:me/a", "prompts": "held_out"},
        "own": {"stage": "respond", "model": "hf:me/a", "prompts": "data:mine"},
    }
    with pytest.raises(Invalid) as caught:
        spec.plan(spec.parse_spec({"name": "e", "runs": runs}))
    assert set(caught.value.fields) == {"usual.prompts", "named.prompts"}
    assert "holds no prompts out. Give its file a held_out section" in caught.value.fields["usual.prompts"]
    assert len(spec.plan(spec.parse_spec({"name": "e", "runs": runs, "held_out": {"dataset": "hf:me/b"}}))) == 3


# The launch


def test_the_section_is_kept_with_the_version_of_its_data_set(database: Database, settings: Settings, put: Put) -> None:
    put("prefs", PAIR)
    put("prefs", PAIR, PAIR)
    number = launch(database, settings, held_out={"dataset": "data:prefs", "n": 20, "seed": 3})
    put("prefs", PAIR, PAIR, PAIR)
    with database.read() as session:
        kept = session.get_one(Experiment, number).spec["held_out"]
    assert kept == {"dataset": "data:prefs@2", "n": 20, "seed": 3}
    file = settings.home / "experiments" / str(number) / "held_out.jsonl"
    assert told(database, settings, number) == HeldOut(
        dataset="data:prefs@2", n=20, seed=3, similarity=0.85, path=str(file)
    )


def test_an_experiment_without_the_section_holds_nothing_out(database: Database, settings: Settings, put: Put) -> None:
    assert told(database, settings, launch(database, settings)) is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("data:gone", "There is no data set “gone”."),
        ("data:prefs@7", "“prefs” has no version 7; it has 1."),
        ("data:texts", "data:texts@1 holds texts; this stage takes prompts from"),
        ("path:nowhere.jsonl", "There is no file or folder"),
        ("path:/etc/passwd", "outside the folders that may be read"),
        ("path:broken.jsonl", "Line 1 of broken.jsonl"),
        ("path:chats.jsonl", "holds texts"),
    ],
)
def test_a_data_set_that_is_not_there_or_holds_no_prompts_launches_nothing(
    reference: str, words: str, database: Database, settings: Settings, put: Put, tmp_path: Path
) -> None:
    put("prefs", PAIR)
    put("texts", {"text": "Once."})
    (tmp_path / "broken.jsonl").write_text("{]\n")
    with pytest.raises(Invalid) as caught:
        launch(database, settings, held_out={"dataset": reference})
    assert list(caught.value.fields) == ["held_out.dataset"] and words in caught.value.fields["held_out.dataset"]
    with database.read() as session:
        assert service.by_name(session, "e") is None


@pytest.mark.parametrize(
    "row", [PAIR, PROMPT, {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}]
)
def test_prompts_pairs_and_chats_can_be_held_out(
    row: dict[str, Any], database: Database, settings: Settings, put: Put
) -> None:
    put("mine", row)
    with database.read() as session:
        assert check_held_out(session, settings, spec.HeldOutSpec(dataset="data:mine")) == {}
        assert check_held_out(session, settings, spec.HeldOutSpec(dataset="hf:me/any")) == {}  # known when it is read


def test_http_and_the_command_line_say_what_is_wrong(script: TestClient, put: Put, tmp_path: Path) -> None:
    text = json.dumps({"name": "e", "runs": {"a": SFT}, "held_out": {"dataset": "data:gone", "n": 3}})
    answer = script.post("/api/v1/experiments", json={"yaml": text})
    assert answer.status_code == 422 and list(answer.json()["error"]["fields"]) == ["held_out.dataset"]
    (tmp_path / "e.yaml").write_text(text)
    done = preflab("launch", str(tmp_path / "e.yaml"))
    assert done.code == 2 and "There is no data set “gone”" in done.err


def test_prompts_that_an_earlier_installation_left_under_the_same_number_are_set_aside(
    database: Database, settings: Settings, put: Put
) -> None:
    put("prefs", PAIR)
    folder = settings.home / "experiments" / "1"
    folder.mkdir()
    (folder / "held_out.jsonl").write_text("another's")
    assert launch(database, settings, held_out={"dataset": "data:prefs"}) == 1
    assert [path.name.partition(".before-")[0] for path in folder.iterdir()] == ["held_out.jsonl"]
    assert not (folder / "held_out.jsonl").exists()


# A run's start


def test_a_worker_finds_the_data_set_and_needs_it_no_more_when_the_prompts_are_drawn(
    database: Database, settings: Settings, put: Put
) -> None:
    put("prefs", PAIR)
    held_out = told(database, settings, launch(database, settings, held_out={"dataset": "data:prefs"}))
    assert held_out is not None
    with database.read() as session:
        found = held_out_input(session, settings, held_out)
    assert found.reference == "data:prefs@1" and found.rows == 1
    assert found.path == str(dataset_path(settings, found.sha256 or ""))
    gone = held_out.model_copy(update={"dataset": "data:gone@1"})
    with database.read() as session:
        with pytest.raises(LookupError, match="The data set “gone” that this run needs is gone"):
            held_out_input(session, settings, gone)
        Path(held_out.path).parent.mkdir()
        Path(held_out.path).write_text("drawn")
        assert held_out_input(session, settings, gone).path is None


# The settings


@pytest.mark.parametrize("value", ["run:a", "all-MiniLM", "path:models/embedder"])
def test_an_embedder_is_a_reference_with_a_whole_path(value: str) -> None:
    with pytest.raises(ValueError, match=r"cannot stand here|whole path"):
        Settings(embedder=value)


def test_an_embedder_may_be_named_or_not() -> None:
    assert Settings().embedder == ""
    assert Settings(embedder=" hf:me/embedder ").embedder == "hf:me/embedder"
    assert Settings(embedder="path:/models/embedder").embedder == "path:/models/embedder"
