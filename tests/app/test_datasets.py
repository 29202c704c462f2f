"""Data sets come in whole or not at all, by the command line and by upload."""

import hashlib
import os
import re
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from app.datasets import queries, service
from app.errors import Conflict, Invalid, NotFound, Unavailable
from app.experiments import service as experiments
from app.runs.inputs import dataset_path
from tests.app.command import preflab
from training.config import parse_config

CHAT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
UPLOAD = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def put(database, settings, tmp_path):
    """Import content under a name."""

    def do(content, name="chats", filename="chats.jsonl"):
        file = tmp_path / filename
        file.write_bytes(content)
        return service.import_file(database, settings, file, name)

    return do


def names(database):
    with database.read() as session:
        return [(row.name, row.version) for row in queries.all_versions(session)][::-1]


def files(settings):
    return sorted(path.name for path in settings.datasets_folder.iterdir())


def test_a_data_set_lies_under_the_hash_of_its_content(put, settings):
    found = put(CHAT * 3)
    path = dataset_path(settings, hashlib.sha256(CHAT * 3).hexdigest())
    assert path.read_bytes() == CHAT * 3 and path.stat().st_mode & 0o077 == 0
    assert (found.name, found.version, found.kind, found.rows, found.bytes) == ("chats", 1, "chat", 3, len(CHAT) * 3)
    assert found.facts["duplicates"] == 2 and found.origin == "chats.jsonl"


def test_other_content_makes_the_next_version_and_the_same_content_the_same(put, database, settings):
    assert [put(content).version for content in (CHAT, CHAT * 2, CHAT, CHAT * 2)] == [1, 2, 1, 2]
    assert put(CHAT, name="other").version == 1
    assert names(database) == [("chats", 1), ("chats", 2), ("other", 1)]
    assert len(files(settings)) == 2


def test_a_bad_row_is_named_with_its_line_and_nothing_is_taken(put, database, settings):
    with pytest.raises(Invalid) as caught:
        put(CHAT * 1233 + b'{"messages": [{"role": "user", "content": "Hi"}]}\n' + CHAT * 10 + b"{\n")
    assert "line 1,234" in caught.value.message.lower() and "chats.jsonl" in caught.value.message
    assert list(caught.value.fields) == ["line 1234", "line 1245"]
    assert names(database) == [] and files(settings) == []


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"a,b\n1,2\n", "CSV"), (b"\x1f\x8b\x08", "gzip"), (b"PAR1xx", "Parquet"), (b"\n\n", "blank")],
)
def test_a_file_that_is_something_else_is_said_to_be(content, word, put, settings):
    with pytest.raises(Invalid, match=word):
        put(content)
    assert files(settings) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "x" * 101, "a\0b"])
def test_a_name_that_is_none_is_refused_before_anything_is_read(name, put, settings):
    with pytest.raises(Invalid):
        put(CHAT, name=name)
    assert files(settings) == []


@pytest.mark.parametrize("filename", ["..", ".", "../../etc/passwd", "a\0b", "", "x" * 5000, "\n", "..\\..\\x"])
def test_an_uploads_file_name_names_nothing_outside(filename, browser, settings):
    answer = browser.put("/api/v1/datasets/a", params={"filename": filename}, content=CHAT, headers=UPLOAD)
    assert answer.status_code == 201, answer.text
    assert files(settings) == [f"{hashlib.sha256(CHAT).hexdigest()}.jsonl"]


def test_a_nearly_full_disk_refuses_before_it_is_full(put, database, settings, tmp_path):
    greedy = settings.model_copy(update={"min_free_disk_bytes": 1 << 60})
    file = tmp_path / "chats.jsonl"
    file.write_bytes(CHAT)
    with pytest.raises(Unavailable, match="too little"):
        service.import_file(database, greedy, file, "chats")
    assert files(settings) == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(database, settings, tmp_path):
    """/dev/full takes every open, and refuses every write as a full disk does."""
    with pytest.raises(Unavailable, match="disk is full"), service.arrival(settings, "chats.jsonl") as coming:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, coming._file.fileno())
        os.close(full)
        coming.write(CHAT)
    assert files(settings) == []


def test_a_link_in_the_way_is_not_written_through(settings, tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.write_text("mine")
    monkeypatch.setattr(service.secrets, "token_hex", lambda _: "same")
    (settings.datasets_folder / ".incoming-same").symlink_to(tmp_path)
    with pytest.raises(FileExistsError), service.arrival(settings, "target"):
        pass
    assert target.read_text() == "mine"


def test_what_a_killed_import_left_is_swept_away_a_day_later(put, settings):
    old, young = (settings.datasets_folder / f".incoming-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir()
        (folder / "x.jsonl").write_bytes(CHAT)
    os.utime(old, (time.time() - 90_000,) * 2)
    put(CHAT)
    assert not old.exists() and young.exists()


def test_two_imports_at_once_get_two_versions(any_database, settings, tmp_path):
    made = []
    barrier = threading.Barrier(4)

    def take(number):
        file = tmp_path / f"{number}.jsonl"
        file.write_bytes(CHAT * (number + 1))
        barrier.wait()
        made.append(service.import_file(any_database, settings, file, "chats").version)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [1, 2, 3, 4]


def test_a_version_that_a_run_was_made_from_is_kept(put, any_database, settings, tmp_path):
    file = tmp_path / "a.jsonl"
    for content in (CHAT, CHAT * 2):
        file.write_bytes(content)
        service.import_file(any_database, settings, file, "a_b")
        service.import_file(any_database, settings, file, "a-b")
    config = parse_config({"stage": "sft", "model": "new:tiny", "dataset": "data:a_b@1"})
    with any_database.write() as session:
        experiments.launch_one(session, settings, config)
    with pytest.raises(Conflict, match="playground/sft-1"):
        service.delete(any_database, settings, "a_b", 1)
    service.delete(any_database, settings, "a_b", 2)
    service.delete(any_database, settings, "a-b", 1)
    with pytest.raises(NotFound):
        service.delete(any_database, settings, "a_b", 2)
    assert names(any_database) == [("a_b", 1), ("a-b", 2)]


def test_a_file_goes_with_the_last_data_set_that_has_its_content(put, database, settings):
    put(CHAT, name="a")
    put(CHAT, name="b")
    for name, left in (("a", 1), ("b", 0)):
        service.delete(database, settings, name, 1)
        assert len(files(settings)) == left


def test_a_deletion_that_is_not_committed_keeps_the_file(put, database, settings):
    put(CHAT, name="a")

    def refuse(session):
        raise OperationalError("COMMIT", {}, Exception("disk full"))

    event.listen(Session, "before_commit", refuse)
    try:
        with pytest.raises(OperationalError):
            service.delete(database, settings, "a", 1)
    finally:
        event.remove(Session, "before_commit", refuse)
    assert names(database) == [("a", 1)]
    assert len(files(settings)) == 1


def test_taking_in_and_deleting_the_same_content_at_once_never_leaves_a_row_without_its_file(
    any_database, settings, tmp_path
):
    file = tmp_path / "a.jsonl"
    file.write_bytes(CHAT)
    service.import_file(any_database, settings, file, "a")
    for turn in range(20):
        deleting = threading.Thread(
            target=service.delete, args=(any_database, settings, f"a{turn - 1}" if turn else "a", 1)
        )
        deleting.start()
        service.import_file(any_database, settings, file, f"a{turn}")
        deleting.join()
        assert len(files(settings)) == 1
        assert names(any_database) == [(f"a{turn}", 1)]


def test_an_upload_streams_to_the_disk_and_is_checked(browser, settings):
    def blocks():
        for _ in range(100):
            yield CHAT * 500

    answer = browser.put("/api/v1/datasets/big", content=blocks(), params={"filename": "my.jsonl"}, headers=UPLOAD)
    assert answer.status_code == 201
    assert answer.json()["dataset"]["rows"] == 50_000 and answer.json()["dataset"]["origin"] == "my.jsonl"
    listed = browser.get("/api/v1/datasets").json()["rows"]
    assert [row["reference"] for row in listed] == ["data:big@1"]
    shown = browser.get("/api/v1/datasets/big/1").json()
    assert len(shown["first_rows"]) == 20 and shown["first_rows"][0]["messages"][0]["content"] == "Hi"


def test_bad_lines_of_an_upload_come_back_by_line(browser, settings):
    answer = browser.put("/api/v1/datasets/bad", content=CHAT + b"[]\n" + CHAT + b"{}\n", headers=UPLOAD)
    assert answer.status_code == 422
    assert list(answer.json()["error"]["fields"]) == ["line 2", "line 4"]
    assert files(settings) == [] and browser.get("/api/v1/datasets").json()["rows"] == []


def test_the_pages_show_what_was_uploaded_and_escape_it(browser):
    row = b'{"messages": [{"role": "user", "content": "<script>alert(1)</script>"}, {"role": "assistant", "content": "x"}]}'
    browser.put("/api/v1/datasets/odd", content=row, params={"filename": "<b>.jsonl"}, headers=UPLOAD)
    for page in ("/datasets", "/datasets/odd", "/datasets/odd/1"):
        answer = browser.get(page, headers={"Accept": "text/html"})
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text and "<b>.jsonl" not in answer.text
    assert browser.get("/datasets/odd/2", headers={"Accept": "text/html"}).status_code == 404


PAIR = b'{"prompt": "Hi <b>", "chosen": "Hello there!", "rejected": "What?"}\n'
SAME = b'{"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}\n'


def test_pairs_are_shown_as_a_prompt_and_two_answers_with_their_lengths(browser, put):
    put(PAIR + SAME, name="prefs")
    page = browser.get("/datasets/prefs", headers={"Accept": "text/html"}).text
    assert "Hi &lt;b&gt;" in page
    sides = re.findall(
        r'<div data-side="(\w+)"><h3>(\w+) <small>(\d+) characters</small></h3><p>.*?>(.*?)</span>', page
    )
    assert sides[:2] == [("chosen", "chosen", "12", "Hello there!"), ("rejected", "rejected", "5", "What?")]
    assert page.count("Left out of training: chosen and rejected say the same.") == 1
    assert "/runs/new?stage=dpo&amp;dataset=data:prefs@1" in page


def test_answers_that_repeat_their_prompt_are_shown_without_it(browser, put):
    user, answer = '{"role": "user", "content": "Why?"}', '{"role": "assistant", "content": "Because %s."}'
    row = f'{{"chosen": [{user}, {answer % "so"}], "rejected": [{user}, {answer % "not"}]}}\n'
    put(row.encode(), name="chatty")
    page = browser.get("/datasets/chatty", headers={"Accept": "text/html"}).text
    assert page.count("Why?") == 1 and "Because so." in page and "Because not." in page


def test_flaws_of_pairs_are_told_by_every_face(browser, put, tmp_path):
    found = put(PAIR + SAME * 3, name="prefs")
    assert found.facts["flaws"] == {"equal": {"count": 3, "line": 2}}
    sentence = "3 pairs will be left out: chosen and rejected say the same (first: line 2)."
    assert sentence in browser.get("/datasets/prefs", headers={"Accept": "text/html"}).text
    (tmp_path / "again.jsonl").write_bytes(PAIR + SAME * 3)
    done = preflab("import", "dataset", str(tmp_path / "again.jsonl"), "--name", "again")
    assert done.code == 0 and done.out == "data:again@1: 4 rows, preference.\n" and sentence in done.err


def test_a_data_set_leads_to_the_stage_that_uses_it(browser, put):
    put(CHAT, name="chats")
    put(PAIR, name="prefs")
    put(b'{"prompt_id": "1", "prompt": "Hi"}\n', name="prompts")
    page = browser.get("/datasets", headers={"Accept": "text/html"}).text
    assert sorted(re.findall(r"/runs/new\?stage=(\w+)&amp;(\w+)=data:(\w+)@1", page)) == [
        ("dpo", "dataset", "prefs"),
        ("respond", "prompts", "prompts"),
        ("sft", "dataset", "chats"),
    ]
    assert ">Answer them</a>" in browser.get("/datasets/prompts", headers={"Accept": "text/html"}).text


def test_a_data_set_whose_file_is_gone_says_where_it_belongs(put, browser, settings):
    found = put(CHAT)
    dataset_path(settings, found.sha256).unlink()
    answer = browser.get("/api/v1/datasets/chats/1")
    assert answer.status_code == 404
    assert str(settings.datasets_folder) in answer.json()["error"]["hint"]


def test_a_deletion_by_the_api_answers_with_what_went(browser, put):
    put(CHAT)
    assert browser.delete("/api/v1/datasets/chats/1").json() == {"deleted": {"name": "chats", "version": 1}}


@pytest.mark.long
def test_two_gigabytes_are_taken_in_in_bounded_memory(database, settings, tmp_path):
    """The whole import in a process of its own, whose peak is measured."""
    import subprocess
    import sys

    row = (
        b'{"messages": [{"role": "user", "content": "' + b"x" * 6000 + b'"}, {"role": "assistant", "content": "%d"}]}\n'
    )
    file = tmp_path / "big.jsonl"
    with file.open("wb") as out:
        for number in range(350_000):
            out.write(row % number)
    assert file.stat().st_size > 2e9
    command = [sys.executable, "-c", MEASURED, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    rows, megabytes = done.stdout.split()
    assert int(rows) == 350_000
    assert float(megabytes) < 250


MEASURED = """
import sys
from pathlib import Path
from app.datasets.service import import_file
from app.db import Database
from app.settings import load_settings
settings = load_settings()
found = import_file(Database(settings.database), settings, Path(sys.argv[1]), "big")
# Not ru_maxrss: a process begins with the peak of the one that started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(found.rows, int(peak.split()[1]) / 1024)
"""
