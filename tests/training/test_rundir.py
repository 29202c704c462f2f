"""The run directory: one writer, whole files, private to their owner."""

import os
import stat
import subprocess
import sys

import pytest

from training.errors import Failure, Locked
from training.rundir import ResolvedInput, RunDir, RunFile, write_atomically

HOLD = """
import sys
from pathlib import Path
from training.rundir import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run_dir(tmp_path):
    found = RunDir(tmp_path / "7")
    found.create()
    return found


def test_only_one_process_holds_the_lock_and_kill_9_frees_it(run_dir):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Locked), run_dir.locked(wait_seconds=0):
        pass
    holder.kill()
    holder.communicate()
    with run_dir.locked(wait_seconds=5):
        assert run_dir.lock.exists()


def test_a_config_is_read_back_as_it_was_written(run_dir):
    content = RunFile(
        run_id=7, name="sft", experiment="demo", stage="sft", attempt=2, config={"stage": "sft", "model": "run:x"},
        inputs={"run:x": ResolvedInput(reference="run:x", path="/models/x")},
    )  # fmt: skip
    run_dir.write_config(content)
    assert run_dir.read_config() == content


def test_the_directory_and_its_files_are_private(run_dir):
    write_atomically(run_dir.error, b"{}")
    assert stat.S_IMODE(run_dir.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(run_dir.error.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file_and_no_litter(run_dir, tmp_path):
    write_atomically(run_dir.error, b"old")
    with pytest.raises(TypeError):
        write_atomically(run_dir.error, "not bytes")  # type: ignore[arg-type]
    assert run_dir.error.read_bytes() == b"old"
    assert os.listdir(run_dir.root) == ["error.json"]


def test_two_writers_with_one_pid_as_in_two_containers_do_not_meet(run_dir, monkeypatch):
    """The second writes the whole file while the first is between writing and renaming."""
    usual = os.fsync

    def other_writes_now(descriptor):
        monkeypatch.setattr(os, "fsync", usual)
        write_atomically(run_dir.error, b"second")
        usual(descriptor)

    monkeypatch.setattr(os, "fsync", other_writes_now)
    write_atomically(run_dir.error, b"first, longer")
    assert run_dir.error.read_bytes() == b"first, longer"
    assert os.listdir(run_dir.root) == ["error.json"]


def test_an_error_file_that_is_missing_or_torn_is_no_error(run_dir):
    assert run_dir.read_error() is None
    run_dir.error.write_text('{"code": "da')
    assert run_dir.read_error() is None
    run_dir.error.write_text(Failure(code="data", message="No rows.").model_dump_json())
    assert run_dir.read_error().message == "No rows."
