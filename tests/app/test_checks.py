"""References are looked up and looked into before a run is launched, for every stage: the form, HTTP and CLI share it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.datasets import service as datasets
from app.db import Database
from app.errors import Invalid
from app.experiments import service as experiments
from app.experiments import spec
from app.models import Run
from app.runs import graph, lease
from app.runs.checks import CheckedInputs, check_inputs
from app.runs.inputs import resolve_inputs
from app.settings import Settings
from tests.app.command import preflab
from tests.training.test_model_files import write_model
from training.config import parse_config
from training.model_files import NEW_SHAPES

PREFERENCE = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
LINES = {
    "prefs": [PREFERENCE] * 4,
    "chats": [CHAT],
    "texts": [{"text": "Once."}],
    "prompts": [{"prompt_id": "1", "prompt": "Hi"}],
}

Check = Callable[..., CheckedInputs]


@pytest.fixture
def check(database: Database, settings: Settings, tmp_path: Path) -> Check:
    """Check a config whose data sets are there."""
    for name, rows in LINES.items():
        add(database, settings, tmp_path, name, rows)

    def do(stage: str = "dpo", **content: Any) -> CheckedInputs:
        config = parse_config(
            {"stage": stage, "model": "hf:me/chat", "dataset": "data:prefs", "max_length": 128} | content
        )
        with database.read() as session:
            owner = experiments.by_name(session, experiments.PLAYGROUND)
            return check_inputs(session, settings, config, owner)

    return do


def add(database: Database, settings: Settings, folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.import_file(database, settings, file, name)
    return file


def finished(database: Database, settings: Settings, name: str, **content: Any) -> int:
    """A run that has ended well, with checkpoints of steps 10 and 20."""
    config = parse_config({"stage": "sft", "model": "new:micro", "dataset": "hf:me/data", "max_length": 128} | content)
    with database.write() as session:
        run = experiments.launch_one(session, settings, config, name=name)
        lease.claim_next(session, {})
        assert run.id is not None and lease.finish(session, run.id, 1)
        for step in (10, 20):
            (settings.run_folder(run.id) / f"checkpoints/step-{step:06d}").mkdir(parents=True)
        return run.id


@pytest.mark.parametrize(
    ("stage", "takes", "refuses"),
    [
        ("sft", ["chats", "texts"], ["prefs", "prompts"]),
        ("dpo", ["prefs"], ["chats", "texts", "prompts"]),
        ("reward", ["prefs"], ["chats", "texts", "prompts"]),
    ],
)
def test_each_stage_takes_its_kinds_of_data_and_names_the_others(
    check: Check, tmp_path: Path, stage: str, takes: list[str], refuses: list[str]
) -> None:
    kinds = {"sft": "chats or texts", "dpo": "preferences", "reward": "preferences"}
    nouns = {"prefs": "preferences", "chats": "chats", "texts": "texts", "prompts": "prompts"}
    for name in takes:
        assert check(stage, dataset=[f"data:{name}", f"path:{tmp_path}/{name}.jsonl"]).errors == {}
    for name in refuses:
        for text, called in ((f"data:{name}", f"data:{name}@1"), (f"path:{tmp_path}/{name}.jsonl", f"{name}.jsonl")):
            said = check(stage, dataset=text).errors
            assert list(said) == ["dataset"]
            assert said["dataset"].startswith(f"{called} holds {nouns[name]}; this stage trains on {kinds[stage]}.")


def test_flaws_of_pairs_are_a_warning_with_their_first_line(
    check: Check, database: Database, settings: Settings, tmp_path: Path
) -> None:
    equal = {**PREFERENCE, "rejected": "Hello!"}
    rows = [PREFERENCE, equal, PREFERENCE, equal, {**PREFERENCE, "rejected": " "}]
    file = add(database, settings, tmp_path, "flawed", rows)
    sentence = (
        "2 pairs will be left out: chosen and rejected say the same (first: line 2)."
        " 1 pair will be left out: an answer is empty (line 5)."
    )
    for text in ("data:flawed", f"path:{file}"):
        found = check(dataset=text)
        assert (found.errors, found.warnings) == ({}, {"dataset": sentence})
    both = check("reward", dataset=["data:prefs", "data:flawed"]).warnings["dataset"]
    assert both.startswith("data:flawed@1: 2 pairs") and " data:flawed@1: 1 pair" in both
    assert check(dataset="data:prefs").warnings == {}


@pytest.mark.parametrize("field", ["model", "reference_model"])
@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_no_run_goes_on_from_a_reward_model(
    check: Check, database: Database, settings: Settings, stage: str, field: str
) -> None:
    number = finished(database, settings, "judge", stage="reward", model="hf:me/chat")
    dataset = "data:chats" if stage == "sft" else "data:prefs"
    if field == "reference_model" and stage != "dpo":
        return
    said = check(stage, dataset=dataset, **{field: f"run:{number}"}).errors
    assert said == {
        field: "“judge” is a reward run: its model judges answers, it writes none. Choose an sft or a dpo run."
    }


def test_nor_where_both_are_launched_together(database: Database, settings: Settings) -> None:
    runs = {
        "judge": {"stage": "reward", "model": "hf:me/chat", "dataset": "hf:me/prefs"},
        "dpo": {"stage": "dpo", "model": "hf:me/chat", "dataset": "hf:me/prefs", "reference_model": "run:judge"},
    }
    with pytest.raises(Invalid) as caught, database.write() as session:
        experiments.launch(session, settings, spec.parse_spec({"name": "e", "runs": runs}))
    assert list(caught.value.fields) == ["dpo.reference_model"]


def test_a_dpo_run_is_a_model_to_go_on_from_and_no_data_set(
    check: Check, database: Database, settings: Settings
) -> None:
    number = finished(database, settings, "tuned", stage="dpo", model="hf:me/chat")
    assert check("sft", model=f"run:{number}", dataset="data:chats").errors == {}
    assert check("dpo", model=f"run:{number}").errors == {}
    said = check("dpo", dataset=f"run:{number}").errors
    assert said == {
        "dataset": "“tuned” is a dpo run: it makes no data set. Choose an augment run, or data:<an upload>."
    }


def test_the_reference_is_a_parent_and_the_worker_gets_its_checkpoint(
    check: Check, database: Database, settings: Settings
) -> None:
    start, other = (finished(database, settings, name) for name in ("start", "other"))
    content = {"model": f"run:{start}", "reference_model": f"run:{other}?checkpoint=10", "dataset": "data:prefs"}
    assert check(**content).parents == [start, other]
    with database.write() as session:
        config = parse_config({"stage": "dpo", **content})
        run = experiments.launch_one(session, settings, config)
        assert run.id is not None and run.config["dataset"] == ["data:prefs@1"]
        assert {parent.id for parent in graph.parents(session, run.id)} == {start, other}
        found = resolve_inputs(session, settings, run, config)
    assert found[f"run:{start}"].weights is None
    assert found[f"run:{other}?checkpoint=10"].weights == str(settings.run_folder(other) / "checkpoints/step-000010")


def test_a_run_waits_for_the_reference_that_is_launched_with_it(database: Database, settings: Settings) -> None:
    sft = {"stage": "sft", "model": "hf:me/base", "dataset": "hf:me/chats"}
    dpo = {"stage": "dpo", "model": "hf:me/chat", "reference_model": "run:sft", "dataset": "hf:me/prefs"}
    with database.write() as session:
        _, made = experiments.launch(
            session, settings, spec.parse_spec({"name": "e", "runs": {"dpo": dpo, "sft": sft}})
        )
        assert [(run.name, run.state) for run in made] == [("sft", "queued"), ("dpo", "waiting")]


def test_a_reference_is_checked_like_a_model(
    check: Check, database: Database, settings: Settings, tmp_path: Path
) -> None:
    other = finished(database, settings, "other")
    (write_model(tmp_path / "spoilt") / "model.safetensors").unlink()
    write_model(tmp_path / "short", max_position_embeddings=64)
    write_model(tmp_path / "judge", architectures=["Qwen2ForSequenceClassification"])
    for reference, field, sentence in (
        ("run:nobody", "reference_model", "There is no run “nobody” in this experiment. Elsewhere: run:"),
        (f"run:{other}?checkpoint=30", "reference_model", "keeps no checkpoint of step 30. It has: 10, 20."),
        ("path:/etc", "reference_model", "outside the folders that may be read"),
        (f"path:{tmp_path}/spoilt", "reference_model", "holds no weights"),
        (f"path:{tmp_path}/judge", "reference_model", "not a causal language model"),
        (f"path:{tmp_path}/short", "max_length", "128 tokens are asked of a model that reads 64 at most."),
    ):
        said = check(reference_model=reference).errors
        assert list(said) == [field] and sentence in said[field], (reference, said)


def test_a_fresh_model_is_its_own_reference_and_nobody_elses(check: Check) -> None:
    assert check(model="new:micro", reference_model="new:micro").errors == {}
    assert check(model="new:micro").errors == {}
    for model, reference, sentence in (
        ("hf:me/chat", "new:micro", "new:micro would be a model of other random weights than the one that is trained."),
        ("new:micro", "new:tiny", "new:tiny would be a model of other random weights"),
        (
            "new:micro",
            "hf:me/chat",
            "A fresh model gets a tokenizer of its own, so no other model can be its reference.",
        ),
    ):
        said = check(model=model, reference_model=reference).errors
        assert list(said) == ["reference_model"] and said["reference_model"].startswith(sentence)
        assert said["reference_model"].endswith("Leave it empty: then the reference is the model as it begins.")


def test_a_reference_with_another_tokenizer_is_refused_at_its_field(check: Check, tmp_path: Path) -> None:
    model, same, other = (tmp_path / name for name in ("model", "same", "other"))
    write_model(model), write_model(same), write_model(other, words=31)
    assert check(model=f"path:{model}", reference_model=f"path:{same}").errors == {}
    said = check(model=f"path:{model}", reference_model=f"path:{other}").errors
    assert list(said) == ["reference_model"] and "tokenizer" in said["reference_model"]


def test_the_form_the_command_and_http_refuse_alike(
    check: Check, script: TestClient, database: Database, settings: Settings
) -> None:
    config = {"model": "hf:me/chat", "dataset": "data:chats"}
    body = {"stage": "dpo", "config": config}
    sentence = "data:chats@1 holds chats; this stage trains on preferences."
    assert sentence in script.post("/api/v1/runs/check", json=body).json()["errors"]["dataset"]
    assert sentence in script.post("/api/v1/runs", json=body).json()["error"]["fields"]["dataset"]
    done = preflab("launch", "--stage", "dpo", "--set", "model=hf:me/chat", "--set", "dataset=data:chats")
    assert done.code == 2 and sentence in done.err


def test_the_command_launches_a_dpo_run_on_a_run_and_a_data_set(
    check: Check, database: Database, settings: Settings
) -> None:
    finished(database, settings, "sft")
    done = preflab("launch", "--stage", "dpo", "--set", "model=run:sft", "--set", "dataset=data:prefs", "--json")
    assert done.code == 0, done.err
    with database.read() as session:
        run = session.get_one(Run, json.loads(done.out)["runs"][0]["id"])
    assert (run.stage, run.config["model"], run.config["dataset"]) == ("dpo", "run:sft", ["data:prefs@1"])


@pytest.mark.parametrize(
    ("model", "warned"),
    [
        ("new:micro", "fresh model"),
        ("hf:Qwen/Qwen2.5-0.5B", "base model"),
        ("hf:Qwen/Qwen2.5-0.5B-Instruct", ""),
        ("hf:google/gemma-3-1b-it", ""),
        ("hf:me/white-kite-1b", "base model"),
        ("path:bare", "base model"),
        ("path:chatty", ""),
        ("run:start", ""),
    ],
)
def test_dpo_from_what_cannot_chat_yet_is_a_warning_at_the_model(
    check: Check, script: TestClient, database: Database, settings: Settings, tmp_path: Path, model: str, warned: str
) -> None:
    finished(database, settings, "start")
    write_model(tmp_path / "bare")
    (write_model(tmp_path / "chatty") / "chat_template.jinja").write_text("{{ messages }}")
    text = model.replace("path:", f"path:{tmp_path}/")
    body = {"stage": "dpo", "config": {"model": text, "dataset": "data:prefs", "max_length": 128}}
    said = script.post("/api/v1/runs/check", json=body).json()
    assert said["errors"] == {}
    assert warned in said["warnings"].get("model", "") and ("model" in said["warnings"]) == bool(warned)


def test_the_panel_counts_the_pairs_that_are_left_and_says_which_are_not(
    check: Check, script: TestClient, database: Database, settings: Settings, tmp_path: Path
) -> None:
    equal = {**PREFERENCE, "rejected": "Hello!"}
    add(database, settings, tmp_path, "flawed", [PREFERENCE] * 90 + [equal] * 10)
    body = {"stage": "dpo", "config": {"model": "hf:me/chat", "dataset": "data:flawed", "eval_fraction": "0.1"}}
    answer = script.post("/api/v1/runs/check", json=body).json()
    assert answer["plan"][0] == {"label": "pairs", "value": "81", "note": "and 9 held back for eval"}
    assert answer["warnings"]["dataset"].startswith("10 pairs will be left out: chosen and rejected say the same")


def test_the_command_that_does_the_same_takes_several_data_sets_with_commas(
    script: TestClient, check: Check, database: Database, settings: Settings, tmp_path: Path
) -> None:
    add(database, settings, tmp_path, "more", [PREFERENCE] * 5)
    body = {"stage": "dpo", "config": {"model": "hf:me/chat", "dataset": "data:prefs, data:more"}}
    assert "--set dataset=data:prefs,data:more" in script.post("/api/v1/runs/check", json=body).json()["command"]


def test_the_form_offers_what_fits_its_stage(
    check: Check, browser: TestClient, database: Database, settings: Settings
) -> None:
    writer, judge = finished(database, settings, "writer"), finished(database, settings, "judge", stage="reward")

    def offers(stage: str) -> set[str]:
        page = browser.get(f"/runs/new?stage={stage}").text
        return set(re.findall(r'<option value="((?:run|data|new):[^"]+)">', page))

    assert offers("dpo") == offers("reward") == {f"run:{writer}", "data:prefs@1"}
    assert offers("sft") == {f"run:{writer}", "data:chats@1", "data:texts@1"} | {f"new:{name}" for name in NEW_SHAPES}
    assert f"run:{judge}" not in offers("sft")


def test_the_form_offers_those_who_answer_and_those_who_judge(
    check: Check, browser: TestClient, database: Database, settings: Settings
) -> None:
    settings.endpoints["local"] = "http://127.0.0.1:9/v1"
    writer, reward = finished(database, settings, "writer"), finished(database, settings, "rm", stage="reward")
    with database.write() as session:
        answering = parse_config({"stage": "respond", "model": f"run:{writer}", "prompts": "data:prompts"})
        experiments.launch_one(session, settings, answering, name="answers")

    def lists(stage: str) -> dict[str, list[tuple[str, str]]]:
        page = browser.get(f"/runs/new?stage={stage}").text
        found = re.findall(r'<datalist id="(\w+)">(.*?)</datalist>', page, re.DOTALL)
        option = re.compile(r'<option value="([^"]+)"(?: data-experiment="([^"]+)")?>')
        return {name: option.findall(content) for name, content in found}

    answers = lists("respond")
    assert [value for value, _ in answers["answerers"]] == [f"run:{writer}", "api:local/"]
    prompts = ["held_out", "data:prompts@1", "data:chats@1", "data:prefs@1"]
    assert sorted(value for value, _ in answers["prompts"]) == sorted(prompts)
    judges = lists("judge")
    assert [value for value, _ in judges["judges"]] == [f"run:{reward}", "checker", "api:local/"]
    assert judges["responses"] == [("run:answers", "playground")]


def test_a_run_joins_an_experiment_whose_name_is_a_question(
    script: TestClient, check: Check, database: Database
) -> None:
    with database.write() as session:
        experiments.create(session, "Does it help?")
    body = {"stage": "sft", "experiment": "Does it help?", "config": {"model": "new:tiny", "dataset": "data:chats"}}
    assert script.post("/api/v1/runs/check", json=body).json()["errors"] == {}
    assert "experiment" in script.post("/api/v1/runs/check", json=body | {"experiment": "Does that?"}).json()["errors"]
