"""Results, files of answers and verdicts, and uploads of them, by the API."""

import json
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from app import tokens
from app.auth import Role
from app.main import create_app
from app.models import Experiment, Prompt, Response, Verdict
from app.winrates import tables
from tests.app.conftest import ADDRESS
from tests.app.winrates.made import answer, answered, count, lines, said, the, verdict

UPLOAD = {"Content-Type": "application/x-ndjson"}
VOTES = [*said("sft", "base", [1, 0, 0.5, 0]), *said("dpo", "base", [1, 1, 0, 1])]


def put(client, what, content, name="e", **params):
    content = content if isinstance(content, bytes) else lines(content)
    return client.put(f"/api/v1/experiments/{name}/{what}", content=content, params=params, headers=UPLOAD)


@pytest.fixture
def filled(browser):
    """Experiment 1, “e”: three models' answers to four prompts, and one judge's verdicts."""
    rows = [{**row, "prompt": "Why?"} for row in answered(["base", "sft", "dpo"], 4)]
    assert put(browser, "responses", rows).status_code == 201
    assert put(browser, "verdicts", VOTES).status_code == 201
    return browser


def get(client, what, experiment=1, **params):
    return client.get(f"/api/v1/experiments/{experiment}/{what}", params=params)


def test_results_are_the_tables(filled, database):
    with database.read() as session:
        owner = the(session)
        expected = {
            "winrate": tables.winrate(session, owner, baseline="sft"),
            "leaderboard": tables.leaderboard(session, owner),
            "agreement": tables.agreement(session, owner),
        }
    for what, table in expected.items():
        params = {"judge": "llm:j", "baseline": "sft", "prompts": "imported"} if what == "winrate" else {}
        found = get(filled, what, **params)
        assert found.status_code == 200 and found.json() == json.loads(json.dumps(table.as_json()))
    assert get(filled, "winrate", baseline="base").json()["rows"][0]["model"] == "dpo"


def test_what_is_not_there_is_said(filled):
    for what, params, status, code in (
        ("winrate", {"baseline": "gpt"}, 404, "not_found"),
        ("winrate", {}, 422, "invalid"),
        ("leaderboard", {"judge": "me"}, 404, "not_found"),
        ("agreement", {"prompts": "x\0"}, 404, "not_found"),
        ("responses", {"prompts": "x"}, 404, "not_found"),
        ("alpaca-eval", {"model": "gpt"}, 404, "not_found"),
        ("alpaca-eval", {}, 422, "invalid"),
    ):
        found = get(filled, what, **params)
        assert (found.status_code, found.json()["error"]["code"]) == (status, code), (what, params)
    for what in ("winrate", "leaderboard", "agreement", "responses", "verdicts", "scores"):
        assert get(filled, what, experiment=77).status_code == 404
        assert get(filled, what, experiment=10**30).status_code == 404


def test_answers_and_verdicts_are_downloads_that_come_in_again(filled, database):
    for what in ("responses", "verdicts"):
        found = get(filled, what)
        assert found.headers["content-disposition"] == f"attachment; filename*=UTF-8''e-{what}.jsonl"
        assert found.headers["content-type"].startswith("application/x-ndjson")
        again = put(filled, what, found.content, "copy", filename=f"e-{what}.jsonl")
        assert again.status_code == 201, again.text
        assert get(filled, what, experiment=2).content == found.content
    assert get(filled, "scores").content == b""
    assert count(database, Experiment, Response, Verdict) == [2, 24, 16]


def test_alpaca_evals_outputs_are_a_download(browser):
    put(browser, "responses", [answer(f"p{n}", "ä/b", str(n), prompt="Why?") for n in range(1200)])
    found = get(browser, "alpaca-eval", model="ä/b")
    assert len(found.json()) == 1200 and found.json()[-1]["output"] == "1199"
    name = quote("e-ä/b-alpaca-eval.json", safe="")
    assert found.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
    assert found.headers["content-type"] == "application/json"


def test_an_upload_says_what_came_in(browser):
    found = put(browser, "responses", [*answered(["a", "b"], 2), answer("q", "a")], prompts="mine")
    assert found.status_code == 201
    assert found.json() == {
        "imported": 5,
        "experiment": {"id": 1, "name": "e"},
        "prompts": "mine",
        "prompt_count": 3,
        "models": 2,
        "notes": ["1 prompt was answered by one model only, so nothing is compared there: “q” (line 5)."],
    }
    votes = put(browser, "verdicts", [verdict("q", "a", "b", 1)])
    assert votes.status_code == 422
    assert list(votes.json()["error"]["fields"]) == ["line 1"]


def test_bad_lines_of_an_upload_come_back_by_line_under_the_files_own_name(browser, database, settings):
    rows = [*VOTES, verdict("p0", "a", "b", 2), *VOTES, b"[]"]
    found = put(browser, "verdicts", rows, filename="../../mine.jsonl")
    error = found.json()["error"]
    assert found.status_code == 422 and list(error["fields"]) == ["line 9", "line 18"]
    assert error["message"].startswith("Line 9 of mine.jsonl: “preference” is 2;")
    assert count(database, Experiment, Prompt, Verdict) == [0, 0, 0]
    assert list(settings.datasets_folder.iterdir()) == []  # where uploads arrive


def test_an_uploads_experiment_has_a_name_that_can_be_one(browser):
    for name in ("a b", "x" * 101, ".."):
        assert put(browser, "verdicts", VOTES, quote(name, safe="")).status_code in {404, 422}
    assert put(browser, "verdicts", b"", "e").status_code == 422
    assert put(browser, "verdicts", VOTES, "e", prompts="a\0b").status_code == 422


def test_the_same_upload_twice_is_a_conflict(filled):
    found = put(filled, "verdicts", VOTES)
    assert found.status_code == 409 and "count double" in found.json()["error"]["message"]


def test_an_upload_may_be_larger_than_other_requests_and_has_its_own_limit(settings, database, browser):
    rows = [answer(f"p{n}", "m", "x" * 1000) for n in range(3000)]
    assert put(browser, "responses", rows).json()["imported"] == 3000  # over three megabytes
    small = create_app(settings.model_copy(update={"upload_max_bytes": 1_000_000}))
    with database.write() as session:
        secret = tokens.create(session, tokens.API, Role.RUNNER, "small")[1]
    client = TestClient(small, base_url=ADDRESS, headers={"Authorization": f"Bearer {secret}"})
    assert put(client, "responses", rows, "another").status_code == 413


@pytest.mark.parametrize("what", ["responses", "verdicts"])
def test_who_may_only_look_uploads_nothing_and_downloads_everything(what, filled, app, database):
    with database.write() as session:
        secret = tokens.create(session, tokens.API, Role.VIEWER, "looker")[1]
    viewer = TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {secret}"})
    assert put(viewer, what, VOTES).status_code == 403
    assert get(viewer, what).status_code == get(viewer, "winrate", baseline="base").status_code == 200
    assert get(TestClient(app, base_url=ADDRESS), what).status_code == 401
