"""Runs as JSON: one launch a key, errors at their fields, verbs, files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app import tokens
from app.auth import Role
from app.db import Database
from app.main import create_app
from app.models import Experiment, Run
from app.settings import Settings
from training.commits import Commits
from training.journal import Journal
from training.references import parse_reference
from training.rundir import RunDir
from worker.relay import ship_all

CHATS = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n'


@pytest.fixture
def client(database: Database, settings: Settings) -> Iterator[TestClient]:
    with database.write() as session:
        _, secret = tokens.create(session, tokens.API, Role.RUNNER, "test")
    (settings.home / "chats.jsonl").write_text(CHATS * 10)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        yield client


def body(settings: Settings, **config: Any) -> dict[str, Any]:
    content = {"model": "new:tiny", "dataset": f"path:{settings.home}/chats.jsonl", **config}
    return {"stage": "sft", "config": content}


def launch(client: TestClient, settings: Settings, **config: Any) -> int:
    answer = client.post("/api/v1/runs", json=body(settings, **config))
    assert answer.status_code == 201, answer.text
    run_id: int = answer.json()["run"]["id"]
    return run_id


def test_the_same_key_launches_one_run_and_answers_the_same(
    client: TestClient, settings: Settings, database: Database
) -> None:
    request = {**body(settings), "name": "once"}
    answers = [client.post("/api/v1/runs", json=request, headers={"Idempotency-Key": "k1"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.json()["run"]["id"] for answer in answers}) == 1
    with database.read() as session:
        assert len(session.exec(select(Run)).all()) == 1


def test_the_same_key_with_another_request_is_another_run(client: TestClient, settings: Settings) -> None:
    requests = [{**body(settings, batch_size=size), "name": f"of-{size}"} for size in (4, 8)]
    answers = [client.post("/api/v1/runs", json=each, headers={"Idempotency-Key": "k1"}) for each in requests]
    assert [answer.json()["run"]["name"] for answer in answers] == ["of-4", "of-8"]


def test_every_wrong_field_is_named_and_nothing_is_half_done(
    client: TestClient, settings: Settings, database: Database
) -> None:
    wrong = {**body(settings, learning_rate=-1, batch_size="many", nonsense=1), "experiment": "fresh"}
    answer = client.post("/api/v1/runs", json=wrong)
    assert answer.status_code == 422
    assert set(answer.json()["error"]["fields"]) == {"learning_rate", "batch_size", "nonsense"}
    with database.read() as session:
        assert session.exec(select(Experiment)).all() == []


@pytest.mark.parametrize(
    ("config", "field", "sentence"),
    [
        ({"dataset": "data:nowhere"}, "dataset", "There is no data set"),
        ({"model": "run:nobody"}, "model", "There is no run"),
        ({"model": "new:gigantic"}, "model", "There is no shape"),
        ({"model": "path:/etc"}, "model", "outside the folders"),
        ({"max_length": 600}, "max_length", "600 tokens are asked of a model that reads 512"),
    ],
)
def test_references_that_cannot_be_used_are_named_before_anything_starts(
    client: TestClient, settings: Settings, config: dict[str, Any], field: str, sentence: str
) -> None:
    for address in ("/api/v1/runs", "/api/v1/runs/check"):
        answer = client.post(address, json=body(settings, **config)).json()
        fields = answer["errors"] if "errors" in answer else answer["error"]["fields"]
        assert sentence in fields[field]


def test_a_model_folder_is_judged_before_the_launch(client: TestClient, settings: Settings) -> None:
    folder = settings.home / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    answer = client.post("/api/v1/runs/check", json=body(settings, model=f"path:{folder}")).json()
    assert "pickle weights" in answer["errors"]["model"]


@pytest.mark.parametrize("other", [{"dataset": ""}, {"learning_rate": "fast"}, {"nonsense": 1}])
def test_a_reference_is_judged_where_another_field_is_wrong(
    client: TestClient, settings: Settings, other: dict[str, Any]
) -> None:
    errors = client.post("/api/v1/runs/check", json=body(settings, model="path:/etc", **other)).json()["errors"]
    assert set(errors) == {"model", *other}
    assert "outside the folders" in errors["model"]
    errors = client.post("/api/v1/runs/check", json=body(settings, model="", dataset="data:nowhere")).json()["errors"]
    assert errors["model"].startswith("Needed.")
    assert "There is no data set" in errors["dataset"]


def test_a_check_changes_nothing_and_says_what_would_be_done(
    client: TestClient, settings: Settings, database: Database
) -> None:
    answer = client.post("/api/v1/runs/check", json=body(settings, max_steps=7)).json()
    assert answer["errors"] == {}
    assert {line["label"]: line["value"] for line in answer["plan"]}["steps"] == "7"
    assert "--set max_steps=7" in answer["command"]
    with database.read() as session:
        assert session.exec(select(Experiment)).all() == []


def test_a_name_that_is_taken_is_said_as_one_types(client: TestClient, settings: Settings) -> None:
    client.post("/api/v1/runs", json={**body(settings), "name": "a"})
    answer = client.post("/api/v1/runs/check", json={**body(settings), "name": "a"}).json()
    assert "already" in answer["errors"]["name"]


def test_stop_resume_retry_and_delete(client: TestClient, settings: Settings) -> None:
    run = launch(client, settings)
    assert client.post(f"/api/v1/runs/{run}/resume").status_code == 409
    assert client.post(f"/api/v1/runs/{run}/stop").json()["run"]["state"] == "stopped"
    assert client.post(f"/api/v1/runs/{run}/retry").json()["run"]["state"] == "queued"
    settings.run_folder(run).mkdir()
    assert client.get(f"/api/v1/runs/{run}/doomed").json()["runs"][0]["id"] == run
    assert client.delete(f"/api/v1/runs/{run}").json() == {"deleted": [run]}
    assert not settings.run_folder(run).exists()
    assert client.get(f"/api/v1/runs/{run}").status_code == 404


def test_what_runs_leave_for_each_other_is_private_and_outlives_them(client: TestClient, settings: Settings) -> None:
    run = launch(client, settings)
    settings.run_folder(run).mkdir()
    (settings.shared_folder / "kept").write_text("x")
    assert settings.shared_folder.stat().st_mode & 0o077 == 0
    client.delete(f"/api/v1/runs/{run}")
    assert (settings.shared_folder / "kept").exists()


def test_the_id_of_a_deleted_run_never_comes_back(client: TestClient, settings: Settings) -> None:
    run = launch(client, settings)
    client.delete(f"/api/v1/runs/{run}")
    assert launch(client, settings) > run


@pytest.mark.parametrize("path", ["..%2f..%2fpreflab.db", "%2e%2e/%2e%2e/preflab.db", "..%5cpreflab.db", "%00"])
def test_no_address_reads_outside_a_run(client: TestClient, settings: Settings, path: str) -> None:
    run = launch(client, settings)
    settings.run_folder(run).mkdir()
    answer = client.get(f"/runs/{run}/files/{path}")
    assert answer.status_code == 404 and b"SQLite" not in answer.content


def test_samples_of_an_attempt_that_was_gone_over_again_are_left_out(
    client: TestClient, settings: Settings, database: Database
) -> None:
    run = launch(client, settings)
    path = settings.home / "journal.jsonl"

    def told() -> tuple[list[int], list[str]]:
        ship_all(database, run, path)
        found = client.get(f"/api/v1/runs/{run}/samples").json()
        return found["steps"], [row["body"]["response"] for row in found["rows"]]

    first = Journal(path, attempt=1)
    for step in (0, 10, 20, 30):
        first.metrics(step, loss=1.0)
        for prompt in (0, 1):
            first.sample(step, prompt, "Who?", f"{prompt} of 1", ended=True)
    assert told() == ([0, 10, 20, 30], ["0 of 1", "1 of 1"])
    second = Journal(path, attempt=2)
    second.metrics(20, eval_loss=1.0)
    assert told() == ([0, 10, 20], ["0 of 1", "1 of 1"])
    second.sample(20, 1, "Who?", "1 of 2", ended=True)
    assert told() == ([0, 10, 20], ["0 of 1", "1 of 2"])
    third = Journal(path, attempt=3)  # a retry, from nothing
    third.sample(0, 0, "Who?", "0 of 3", ended=True)
    assert told() == ([0], ["0 of 3", "1 of 1"])


def test_the_page_of_a_run_tells_the_commits_that_it_began_with(client: TestClient, settings: Settings) -> None:
    run = launch(client, settings)
    run_dir = RunDir(settings.run_folder(run))
    run_dir.create()
    Commits(run_dir.commits).resolve("model", parse_reference("hf:me/tiny"), lambda: "c0ffee" * 6)
    page = client.get(f"/runs/{run}").text
    assert f"<dt>commits.model.hf:me/tiny</dt><dd>{'c0ffee' * 6}</dd>" in page


def test_a_file_comes_as_an_attachment(client: TestClient, settings: Settings) -> None:
    run = launch(client, settings)
    settings.run_folder(run).mkdir()
    (settings.run_folder(run) / "<b>.html").write_text("<script>")
    answer = client.get(f"/runs/{run}/files/%3Cb%3E.html")
    assert answer.text == "<script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["/runs", "/runs/new", "/runs/1", "/experiments", "/experiments/1", "/workers", "/datasets"]
)
def test_words_of_people_are_escaped_on_every_page(
    client: TestClient, settings: Settings, database: Database, path: str
) -> None:
    run = launch(client, settings)
    with database.write() as session:
        found = session.get(Run, run)
        assert found is not None
        found.name, found.phase = "<script>alert(1)</script>", "<img src=x>"
        found.error = {
            "message": "<script>alert(2)</script>",
            "hint": "",
            "step": None,
            "checkpoint": None,
            "field": None,
        }
    page = client.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "<script>alert" not in page.text and "<img src=x>" not in page.text


@pytest.mark.parametrize("text", ["", "not yaml: [", "[1, 2]", "stage: dance", "stage: sft\nnonsense: 1", "a: &a [*a]"])
def test_yaml_that_is_no_run_is_answered_with_a_sentence(client: TestClient, text: str) -> None:
    answer = client.post("/api/v1/runs/read", json={"text": text})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]
