"""Bad input ends in one sentence that says what, where and what to do, and leaves nothing half-done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app import tokens
from app.auth import Role
from app.datasets import service as datasets
from app.db import Database
from app.errors import AppError, Unavailable
from app.main import create_app
from app.models import Dataset, Experiment, Run
from app.runs import contents
from app.settings import Settings
from tests.app.command import preflab
from tests.training.test_model_files import write_model
from training.config import STAGES

CHAT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
BYTES = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}

FILES: dict[str, tuple[bytes, str, str]] = {
    "empty.jsonl": (b"", "empty.jsonl is empty.", "one object a line"),
    "blank.jsonl": (b"\n \n", "blank.jsonl holds only blank lines.", "one object a line"),
    "table.csv": (b"question,answer\n1,2\n", "table.csv is CSV (columns: question, answer)", "Convert it"),
    "no_answer.jsonl": (
        CHAT + b'{"messages": [{"role": "user", "content": "Hi"}]}\n',
        "Line 2 of no_answer.jsonl: the row has no assistant turn",
        "Add the answer",
    ),
    "broken.jsonl": (
        CHAT * 1233 + CHAT[:35] + b"\n" + CHAT * 98_766,
        "Line 1,234 of broken.jsonl: this is not valid JSON",
        "Correct the line",
    ),
    "deep.jsonl": (b'{"messages": ' + b"[" * 100_000 + b"\n", "nested too deeply", "flat object"),
    "nul.jsonl": (b'{"text": "a\\u0000b"}\n', "Line 1 of nul.jsonl: “text” holds a NUL character", "Leave the character"),
    "raw_nul.jsonl": (CHAT + b'{"text": "a\0b"}\n', "Line 2 of raw_nul.jsonl: the row holds NUL bytes", "Write the file again"),
    "half.jsonl": (b'{"text": "a\\ud83d"}\n', "Line 1 of half.jsonl: the row holds half of a surrogate pair", "leave it out"),
    "latin.jsonl": ('{"text": "café"}\n'.encode("latin-1"), "Line 1 of latin.jsonl: byte 14 is not UTF-8", "iconv"),
    "zeros.jsonl": (b"\0" * 4096, "zeros.jsonl is binary: it begins with NUL bytes", "Write the file again"),
}  # fmt: skip


@pytest.fixture
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_bytes(FILES[request.param][0])
    return path


@pytest.fixture
def command(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`preflab` works on the same home, and may read what the test made."""
    monkeypatch.setenv("PREFLAB_ALLOWED_PATHS", str(tmp_path))


def nothing_is_left(database: Database, settings: Settings) -> bool:
    with database.read() as session:
        rows = [row for table in (Run, Experiment, Dataset) for row in session.exec(select(table))]
    folders = [*settings.datasets_folder.iterdir(), *settings.runs_folder.iterdir()]
    assert (rows, folders) == ([], [])
    return True


def config(**changes: Any) -> dict[str, Any]:
    return {"model": "new:micro", "dataset": "hf:me/chats", "max_length": 128, **changes}


def refused_everywhere(script: TestClient, content: dict[str, Any], field: str, *sentences: str) -> None:
    """The form's check, the launch by HTTP and the command say the same of the same field."""
    body = {"stage": "sft", "config": content}
    checked = script.post("/api/v1/runs/check", json=body)
    assert list(checked.json()["errors"]) == [field]
    launched = script.post("/api/v1/runs", json=body)
    assert launched.status_code == 422 and list(launched.json()["error"]["fields"]) == [field]
    sets = [part for key, value in content.items() for part in ("--set", f"{key}={value}")]
    done = preflab("launch", "--stage", "sft", *sets)
    assert done.code == 2 and done.out == "" and "Traceback" not in done.err
    told = (checked.json()["errors"][field], launched.json()["error"]["fields"][field], done.err)
    assert all(sentence in each for sentence in sentences for each in told), told


# -- files of data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, indirect=True)
def test_a_bad_file_is_not_taken_in_by_upload(
    file: Path, script: TestClient, database: Database, settings: Settings
) -> None:
    _, what, way = FILES[file.name]
    answer = script.put(
        "/api/v1/datasets/mine", params={"filename": file.name}, content=file.read_bytes(), headers=BYTES
    )
    error = answer.json()["error"]
    assert answer.status_code == 422 and what in error["message"] and way in error["hint"]
    assert nothing_is_left(database, settings)


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("file", FILES, indirect=True)
def test_nor_by_the_command(file: Path, database: Database, settings: Settings) -> None:
    done = preflab("import", "dataset", str(file), "--name", "mine")
    assert (done.code, done.out) == (2, "")
    assert all(part in done.err for part in FILES[file.name][1:]), done.err
    assert nothing_is_left(database, settings)


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("file", FILES, indirect=True)
def test_no_run_is_launched_on_it(file: Path, script: TestClient, database: Database, settings: Settings) -> None:
    refused_everywhere(script, config(dataset=f"path:{file}"), "dataset", *FILES[file.name][1:])
    assert nothing_is_left(database, settings)


@pytest.mark.usefixtures("command")
def test_of_a_large_file_the_first_rows_are_checked_at_launch(
    script: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "MOST_SCANNED", 1000)
    (tmp_path / "early.jsonl").write_bytes(CHAT * 500 + b"{\n" + CHAT * 1000)
    refused_everywhere(script, config(dataset=f"path:{tmp_path}/early.jsonl"), "dataset", "Line 501 of early.jsonl")
    (tmp_path / "late.jsonl").write_bytes(CHAT * 1500 + b"{\n")
    body = {"stage": "sft", "config": config(dataset=f"path:{tmp_path}/late.jsonl")}
    assert script.post("/api/v1/runs/check", json=body).json()["errors"] == {}


@pytest.mark.usefixtures("command")
def test_two_gigabytes_that_are_no_data_set_are_refused_before_they_are_copied(
    script: TestClient, database: Database, settings: Settings, tmp_path: Path
) -> None:
    large = tmp_path / "large.csv"
    large.write_bytes(b"question,answer\n" + b"1,2\n" * 4000)
    os.truncate(large, 2 << 30)
    written = Path("/proc/self/io").read_text().split("write_bytes: ")[1]
    done = preflab("import", "dataset", str(large), "--name", "mine")
    assert done.code == 2 and "large.csv is CSV" in done.err
    assert (
        int(Path("/proc/self/io").read_text().split("write_bytes: ")[1].split()[0]) - int(written.split()[0]) < 1 << 24
    )
    refused_everywhere(script, config(dataset=f"path:{large}"), "dataset", "large.csv is CSV")
    assert nothing_is_left(database, settings)


@pytest.mark.usefixtures("command")
def test_a_pipe_is_not_waited_for(script: TestClient, database: Database, settings: Settings, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused_everywhere(script, config(dataset=f"path:{tmp_path}/pipe"), "dataset", "pipe is no plain file")
    done = preflab("import", "dataset", str(tmp_path / "pipe"), "--name", "mine")
    assert done.code == 2 and "pipe is no plain file" in done.err
    assert nothing_is_left(database, settings)


# -- models --------------------------------------------------------------------------------------------------------


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def tensors(folder: Path, header: Any, data: bytes = b"\0" * 16) -> None:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
MODELS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "without weights": (lambda at: (at / "model.safetensors").unlink(), "holds no weights", "download the model again"),
    "with pickle weights": (
        lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"),
        "has only pickle weights (pytorch_model.bin)",
        "Convert them",
    ),
    "a pickle by another name": (
        lambda at: (at / "model.safetensors").write_bytes(b"\x80\x04abc"),
        "is a pickle under another name",
        "Take the model from its source",
    ),
    "with code of its own": (
        lambda at: change(at, "config.json", auto_map={"AutoModelForCausalLM": "modeling.Own"}),
        "needs code of its own (auto_map in config.json)",
        "Take a model",
    ),
    "a vocabulary larger than the embedding": (
        lambda at: write_model(at, rows=32, words=40),
        "has 40 tokens, but the model's embedding only 32 rows",
        "Use the tokenizer that the model was trained with",
    ),
    "without a tokenizer": (lambda at: (at / "tokenizer.json").unlink(), "holds no tokenizer", "Save it beside"),
    "cut weights": (cut, "model.safetensors is cut short", "download the file again"),
    "an endless header": (
        lambda at: (at / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"x"),
        "is no safetensors file",
        "download the file again",
    ),
    "a header that is no JSON": (
        lambda at: (at / "model.safetensors").write_bytes(struct.pack("<Q", 2000) + b"[" * 2000),
        "its header cannot be read",
        "download the file again",
    ),
    "tensors of negative size": (
        lambda at: tensors(at, {"embed_tokens.weight": {**F32, "shape": [-2, -2]}}),
        "has a negative size",
        "download the file again",
    ),
    "tensors on top of each other": (lambda at: tensors(at, {"a": F32, "b": F32}), "overlap at byte 0", "again"),
    "deep JSON": (lambda at: (at / "config.json").write_text("[" * 100_000), "config.json is not valid JSON", "again"),
    "half a character": (lambda at: (at / "config.json").write_text('{"a": "\\ud800"}'), "is not valid JSON", "again"),
    "another kind of model": (
        lambda at: change(at, "config.json", architectures=["BertForMaskedLM"]),
        "is a BertForMaskedLM, not a causal language model",
        "ForCausalLM",
    ),
    "no model": (lambda at: (at / "config.json").unlink(), "holds no config.json", "Name a folder"),
}


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("what", MODELS)
def test_a_bad_model_is_refused_at_launch(
    what: str, script: TestClient, database: Database, settings: Settings, tmp_path: Path
) -> None:
    spoil, *sentences = MODELS[what]
    spoil(write_model(tmp_path / "model"))
    refused_everywhere(script, config(model=f"path:{tmp_path}/model"), "model", *sentences)
    assert nothing_is_left(database, settings)


@pytest.mark.usefixtures("command")
def test_more_tokens_than_the_model_reads_are_refused_at_launch(
    script: TestClient, database: Database, settings: Settings, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model")
    for name, most in ((f"path:{model}", 256), ("new:micro", 512)):
        sentences = f"{2 * most:,} tokens are asked of a model that reads {most} at most.", f"to {most} or less"
        refused_everywhere(script, config(model=name, max_length=2 * most), "max_length", *sentences)
    assert nothing_is_left(database, settings)


@pytest.mark.usefixtures("command")
def test_no_run_of_an_experiment_is_launched_where_one_model_is_bad(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    (write_model(tmp_path / "model") / "model.safetensors").unlink()
    file = tmp_path / "two.yaml"
    good, bad = config(stage="sft"), config(stage="sft", model=f"path:{tmp_path}/model")
    file.write_text(json.dumps({"name": "two", "runs": {"good": good, "bad": bad}}))
    done = preflab("launch", str(file))
    assert done.code == 2 and "holds no weights" in done.err
    assert nothing_is_left(database, settings)


# -- odd texts -----------------------------------------------------------------------------------------------------

ODD = ("--flag", "<script>", "../", "a/b", "x" * 101, "a\0b", "a\nb", "\ud800", "é")


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_makes_nothing(name: str, script: TestClient, database: Database, settings: Settings) -> None:
    body = config(dataset="hf:me/chats")
    for field in ("name", "experiment"):
        content = json.dumps({"stage": "sft", "config": body, field: name})
        answer = script.post("/api/v1/runs", content=content, headers=JSON)
        assert answer.status_code == 422 and list(answer.json()["error"]["fields"]) == [field]
        done = preflab(
            "launch", "--stage", "sft", "--set", "model=new:micro", "--set", "dataset=hf:me/c", f"--{field}={name}"
        )
        assert done.code == 2 and "Traceback" not in done.err
    done = preflab("import", "dataset", "chats.jsonl", f"--name={name}")
    assert done.code == 2 and ("cannot be a data set's name" in done.err or "is not UTF-8" in done.err)
    assert nothing_is_left(database, settings)


@pytest.mark.parametrize("name", ["--flag", "%3Cscript%3E", "..%2Fx", "%2e%2e%2f", "a%00b", "%ED%A0%80", "x" * 101])
def test_an_odd_name_of_an_upload_makes_nothing(
    name: str, script: TestClient, database: Database, settings: Settings
) -> None:
    answer = script.put(f"/api/v1/datasets/{name}", content=CHAT, headers=BYTES)
    assert answer.status_code in {404, 405, 422} and answer.json()["error"]["message"]
    assert nothing_is_left(database, settings)


@pytest.mark.parametrize("name", ["../../x", "<script>", "a\0b", "東" * 100, "..", "", "-rf", "\u202egnp", "a\nb"])
def test_the_name_that_a_browser_gives_a_file_is_only_a_name(name: str, script: TestClient, settings: Settings) -> None:
    answer = script.put("/api/v1/datasets/mine", params={"filename": name}, content=CHAT, headers=BYTES)
    assert answer.status_code == 201
    [file] = settings.datasets_folder.iterdir()
    assert file.suffix == ".jsonl" and "/" not in answer.json()["dataset"]["origin"]


REFERENCES = {
    "path:a\0b": "control character",
    "path:" + "a" * 5000: "cannot be read",
    "path:" + "a/" * 3000: "cannot be read",
    "path:../../etc/passwd": "outside the folders",
    "path:~nobody-at-all/x": "outside the folders",
    "path:/dev/zero": "outside the folders",
    "path:<script>": "There is no file or folder",
    "path:\ud800": "half of a surrogate pair",
    "hf:--flag/x": "is no hf: name",
}


@pytest.mark.parametrize("field", ["model", "dataset"])
@pytest.mark.parametrize("reference", REFERENCES)
def test_an_odd_reference_is_refused_with_a_sentence(
    reference: str, field: str, script: TestClient, database: Database, settings: Settings
) -> None:
    content = json.dumps({"stage": "sft", "config": config(**{field: reference})})
    for address in ("/api/v1/runs/check", "/api/v1/runs"):
        answer = script.post(address, content=content, headers=JSON)
        found = answer.json().get("errors") or answer.json()["error"]["fields"]
        assert REFERENCES[reference] in found[field]
    assert nothing_is_left(database, settings)


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"stage": "sft", "config": {"seed": ' + b"9" * 5000 + b"}}", b"\xff\xfe{", b"\0", b'{"stage": "\\ud800", "config": {}}'],
    ids=["deep", "an endless number", "no UTF-8", "NUL", "half a character"],
)  # fmt: skip
def test_an_odd_body_gets_an_answer(body: bytes, script: TestClient) -> None:
    for address in ("/api/v1/runs/check", "/api/v1/runs", "/api/v1/runs/read"):
        answer = script.post(address, content=body, headers=JSON)
        assert answer.status_code in {400, 422} and answer.json()["error"]["message"]


@pytest.mark.parametrize("text", ["[" * 3000, "stage: sft\n1: 2", "*x", "a: \0", "!!python/name:os.system"])
def test_odd_yaml_gets_an_answer(text: str, script: TestClient) -> None:
    answer = script.post("/api/v1/runs/read", json={"text": text})
    assert answer.status_code == 422 and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "address",
    ["runs/{}", "runs/{}/series", "runs/{}/events", "runs?experiment={}", "experiments/{}", "datasets/x/{}"],
)
def test_a_number_beyond_all_ids_is_not_found(address: str, script: TestClient) -> None:
    answer = script.get(f"/api/v1/{address.format(10**20)}")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


@pytest.fixture
def looking(any_database: Database, settings: Settings) -> Iterator[TestClient]:
    """A viewer's browser, on either database."""
    url = any_database.engine.url.render_as_string(hide_password=False)
    app = create_app(settings.model_copy(update={"database_url": url}))
    with any_database.write() as session:
        secret = tokens.create(session, tokens.API, Role.VIEWER, "looking")[1]
    yield TestClient(app, base_url="http://127.0.0.1:8321", headers={"Authorization": f"Bearer {secret}"})
    app.state.database.dispose()


NUMBERED = (
    "api/v1/runs/{}", "api/v1/runs/{}/events", "api/v1/runs/{}/samples", "api/v1/runs?experiment={}", "runs?page={}",
    "api/v1/datasets/x/{}", "api/v1/experiments/{}", "runs/{}", "runs/new?from={}", "experiments/{}", "datasets/x/{}",
    "runs?experiment={}",
)  # fmt: skip
WORDED = (
    "runs?q={}", "runs?stage={}", "runs?state={}", "runs?experiment={}", "runs?page={}", "runs?sort={}", "runs/{}",
    "runs/new?from={}", "runs/new?stage={}", "runs/new?dataset={}", "datasets/{}", "datasets/x/{}",
    "api/v1/runs?q={}", "api/v1/runs?stage={}", "api/v1/datasets/{}/1", "api/v1/live?runs={}",
)  # fmt: skip


def test_a_large_number_in_an_address_names_nothing_on_either_database(looking: TestClient) -> None:
    for address in NUMBERED:
        usual = looking.get("/" + address.format(12345)).status_code
        for number in (2**31, 99_999_999_999, 10**20):
            assert looking.get("/" + address.format(number)).status_code in {usual, 404}, address


@pytest.mark.parametrize("text", ["%00", "%C2%B2", "%D9%A3", "-1"])  # NUL, ², an Arabic 3
def test_odd_texts_in_an_address_get_an_answer_on_either_database(text: str, looking: TestClient) -> None:
    for address in WORDED:
        assert looking.get("/" + address.format(text)).status_code in {200, 404, 422}, address


def test_a_name_where_an_address_has_a_number_is_not_found(looking: TestClient) -> None:
    for address in ("/experiments/trial", "/runs/trial", "/api/v1/experiments/trial"):
        assert looking.get(address).status_code == 404, address


@pytest.mark.parametrize("stage", STAGES)
def test_a_form_that_is_filled_in_from_nothing_is_told_at_each_field_what_is_missing(
    stage: str, looking: TestClient
) -> None:
    required = {name for name, info in STAGES[stage].model_fields.items() if info.is_required()}
    # What these take where nothing is said, the experiment does not have.
    lacking = {"respond": {"prompts"}, "judge": {"responses"}}.get(stage, set())
    answer = looking.post("/api/v1/runs/check", json={"stage": stage, "config": {}})
    assert answer.status_code == 200
    assert required and set(answer.json()["errors"]) == required | lacking


def test_a_version_beyond_all_numbers_is_named_at_its_field(looking: TestClient) -> None:
    body = {"stage": "sft", "config": config(dataset="data:chats@99999999999")}
    assert list(looking.post("/api/v1/runs/check", json=body).json()["errors"]) == ["dataset"]


# -- the machine ---------------------------------------------------------------------------------------------------


@pytest.fixture
def open_place(tmp_path: Path) -> Iterator[Path]:
    """A folder that every user of the machine may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Root ignores permissions: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_said_at_launch(database: Database, settings: Settings, open_place: Path) -> None:
    """No row can be made: the sentence comes from the same check as in every launch."""
    from app.runs.checks import check_inputs
    from training.config import parse_config

    folder = write_model(open_place / "model")
    (open_place / "chats.jsonl").write_bytes(CHAT)
    (open_place / "shut").mkdir()
    for path in (folder / "model.safetensors", open_place / "chats.jsonl", open_place / "shut"):
        path.chmod(0)
    here = settings.model_copy(update={"allowed_paths": [open_place]})
    with database.read() as session, an_ordinary_user():
        for model, data in ((folder, "chats.jsonl"), (open_place / "shut" / "in", "shut/in.jsonl")):
            given = parse_config({"stage": "sft", **config(model=f"path:{model}", dataset=f"path:{open_place}/{data}")})
            errors = check_inputs(session, here, given, None).errors
            assert list(errors) == ["model", "dataset"]
            assert all("Permission denied" in each and "who" in each for each in errors.values()), errors


def test_an_import_without_permission_says_where(database: Database, settings: Settings, open_place: Path) -> None:
    (open_place / "chats.jsonl").write_bytes(CHAT)
    (open_place / "datasets").mkdir(mode=0o755)
    closed = settings.model_copy(update={"home": open_place})
    with an_ordinary_user():
        open_place.joinpath("datasets").chmod(0o555) if os.geteuid() == open_place.stat().st_uid else None
        with pytest.raises(Unavailable, match="cannot be written") as caught:
            datasets.import_file(database, closed, open_place / "chats.jsonl", "mine")
    assert "PREFLAB_HOME" in caught.value.hint
    assert not list((open_place / "datasets").iterdir())
    (open_place / "chats.jsonl").chmod(0)
    with an_ordinary_user(), pytest.raises(AppError, match=r"chats.jsonl cannot be read: Permission denied"):
        datasets.import_file(database, closed, open_place / "chats.jsonl", "mine")


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A disk of its own over a folder; skipped where none may be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here (root may)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all that is free."""
    file = folder / "filler"
    with file.open("ab", buffering=0) as out, contextlib.suppress(OSError):
        while out.write(b"\0" * 4096):
            pass
    return file


def test_an_upload_to_a_full_disk_leaves_nothing_and_works_once_there_is_room(
    app: Any, script: TestClient, database: Database, settings: Settings
) -> None:
    app.state.settings = settings.model_copy(update={"min_free_disk_bytes": 0})
    with small_disk(settings.datasets_folder, 512):
        answer = script.put("/api/v1/datasets/mine", content=iter([CHAT * 8000]), headers=BYTES)
        error = answer.json()["error"]
        assert answer.status_code == 503 and error["message"].startswith("The disk is full") and "Free" in error["hint"]
        assert nothing_is_left(database, settings)
        answer = script.put("/api/v1/datasets/mine", content=iter([CHAT * 100]), headers=BYTES)
        assert answer.status_code == 201


def test_an_upload_is_refused_before_it_comes_where_there_is_no_room(
    app: Any, script: TestClient, database: Database, settings: Settings
) -> None:
    app.state.settings = settings.model_copy(update={"min_free_disk_bytes": 1 << 60})
    answer = script.put("/api/v1/datasets/mine", content=CHAT, headers=BYTES)
    assert answer.status_code == 503 and "too little" in answer.json()["error"]["message"]
    assert nothing_is_left(database, settings)
