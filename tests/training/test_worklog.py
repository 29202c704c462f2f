"""The log of many small works: what is done stays done, and a kill repeats only what was in flight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.errors import DiskFull
from training.worklog import WorkLog


def test_what_is_done_is_known_to_the_next_attempt_and_what_was_begun_counts_as_interrupted(tmp_path: Path) -> None:
    with WorkLog(tmp_path / "work.jsonl") as log:
        log.begin(["a", "b"])
        log.finish({"a": 1, "b": {"text": "zwei"}})
        log.begin(["c", "d"])
    with WorkLog(tmp_path / "work.jsonl") as log:
        assert log.done == {"a": 1, "b": {"text": "zwei"}}
        assert log.interrupted == {"c", "d"} and log.repeated == 0
        log.begin(["c"])
        log.finish({"c": 3})
        assert log.repeated == 1
    with WorkLog(tmp_path / "work.jsonl") as log:
        assert log.interrupted == {"d"} and log.repeated == 1


@pytest.mark.parametrize("torn", [b'{"done": {"b"', b'{"begun": ["b"]}', b"\xff\x00"])
def test_a_torn_last_line_counts_for_nothing_and_the_next_line_is_whole(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "work.jsonl"
    with WorkLog(path) as log:
        log.begin(["a"])
        log.finish({"a": 1})
    with path.open("ab") as file:
        file.write(torn)  # without its newline: the process died while it wrote
    with WorkLog(path) as log:
        assert log.done == {"a": 1} and not log.interrupted
        log.finish({"c": 3})
    with WorkLog(path) as log:
        assert log.done == {"a": 1, "c": 3}


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    with WorkLog(path) as log:
        log.finish({str(number): "x" * 100 for number in range(20)})
    content = path.read_bytes()
    for cut in range(0, len(content), 97):
        path.write_bytes(content[:cut])
        with WorkLog(path) as log:
            assert log.done == {}


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WorkLog(tmp_path / "work.jsonl")
    os.close(log._file)
    log._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(DiskFull, match="what was done"):
        log.begin(["a"])
    log.close()
