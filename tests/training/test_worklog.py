"""The log of many small works: what is done stays done, and a kill repeats only what was in flight."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from training.errors import DiskFull
from training.worklog import DONE, WorkLog

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(
    "line", [b"\0" * 40, b'{"done": ["a"]}', b"[1]", b'"done"', b'{"begun": 3, "done": {"b": 1}}', b"\xff"]
)
def test_a_line_that_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "work.jsonl"
    with WorkLog(path) as log:
        log.finish({"a": 1})
    with path.open("ab") as file:
        file.write(line + b"\n")
    with WorkLog(path) as log:
        log.finish({"c": 3})
    with WorkLog(path) as log:
        assert log.done == {"a": 1, "c": 3} and not log.interrupted and log.repeated == 0


def test_after_a_write_that_failed_half_way_the_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    with WorkLog(path) as log:
        log.finish({"a": 1})
        usual, before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        try:
            with pytest.raises(DiskFull):
                log.finish({"b": "x" * 100})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, usual)
        assert "b" not in log.done
        log.finish({"c": 3})
    assert path.read_bytes().count(b"\n") == 2
    with WorkLog(path) as log:
        assert log.done == {"a": 1, "c": 3}


def test_a_kill_between_begin_and_finish_leaves_what_was_begun_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    script = f"""
import os, signal
from pathlib import Path
from training.worklog import WorkLog
log = WorkLog(Path({str(path)!r}))
log.begin(["a"]); log.finish({{"a": 1}}); log.begin(["b", "c"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    with WorkLog(path) as log:
        assert log.done == {"a": 1} and log.interrupted == {"b", "c"} and log.repeated == 3
        assert progress_lines(path) == 2


def progress_lines(path: Path) -> int:
    """As the supervisor counts them, without reading them."""
    return sum(line.startswith(DONE) for line in path.read_bytes().splitlines())


def test_works_of_many_threads_are_each_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    with WorkLog(path) as log:

        def work(number: int) -> None:
            log.begin([str(number)])
            log.finish({str(number): "x" * 5000})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(64)))
    with WorkLog(path) as log:
        assert len(log.done) == 64 and not log.interrupted and log.repeated == 0


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WorkLog(tmp_path / "work.jsonl")
    os.close(log._file)
    log._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(DiskFull, match="what was done"):
        log.begin(["a"])
    log.close()
