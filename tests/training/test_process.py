"""`python -m training` as its supervisor sees it: exit codes, signals, locks, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.minihub import MiniHub
from tests.training.small import EXACT, logs, make_run, metrics, records, write_pairs
from training.errors import Exit
from training.rundir import RunDir

ROOT = Path(__file__).parents[2]


def start(run_dir: RunDir, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", str(run_dir.root), *options],
        cwd=ROOT,
        env={**os.environ, "PREFLAB_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors


def wait_for(run_dir: RunDir, step: int, process: subprocess.Popen[str]) -> None:
    """Until the journal holds a step's metrics."""
    while process.poll() is None:
        if run_dir.journal.exists() and (step, "loss") in metrics(run_dir, "loss"):
            return
        time.sleep(0.005)
    pytest.fail(f"it ended before step {step}: {process.stderr.read() if process.stderr else ''}")


def test_a_bad_setting_is_said_in_error_json_without_a_traceback(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, _ = make_run(tmp_path, small_model, small_data, max_length=512)
    code, errors = end(start(run_dir))
    assert code == Exit.INPUT
    assert "Traceback" not in errors
    failure = run_dir.read_error()
    assert failure is not None
    assert (failure.code, failure.field) == ("input", "max_length")
    assert run_dir.error.stat().st_mode & 0o777 == 0o600
    # Put right, the next attempt removes what the last one said.
    make_run(tmp_path, small_model, small_data, attempt=2, max_steps=1)
    assert end(start(run_dir))[0] == Exit.FINISHED
    assert run_dir.read_error() is None
    environment = json.loads(run_dir.env.read_text())
    assert environment["threads"] == 1
    assert environment["packages"]["torch"] == torch.__version__
    assert not [each for each in run_dir.root.rglob("*") if each.stat().st_mode & 0o077], "private to its owner"


def test_a_second_trainer_of_the_same_run_is_refused(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    run_dir, _ = make_run(tmp_path, small_model, small_data)
    script = f"""
import sys; from training import rundir, __main__
flock = rundir._flock
rundir._flock = lambda descriptor, seconds: flock(descriptor, 0.2)
sys.exit(__main__.main([{str(run_dir.root)!r}]))
"""
    with run_dir.locked():
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == Exit.LOCKED
    assert not run_dir.journal.exists()


def test_it_does_not_begin_where_its_parent_is_gone(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    run_dir, _ = make_run(tmp_path, small_model, small_data)
    assert end(start(run_dir, "--parent", "1"))[0] == Exit.PARENT_GONE
    assert not run_dir.lock.exists()


@pytest.mark.long
def test_it_dies_with_its_parent(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    run_dir, _ = make_run(tmp_path, small_model, small_data, max_steps=100_000)
    command = f"exec {sys.executable} -m training {run_dir.root} --parent $PPID"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; p = subprocess.Popen(['sh', '-c', {command!r}]); print(p.pid, flush=True); p.wait()"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    while not run_dir.journal.exists() or not metrics(run_dir, "loss"):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    with run_dir.locked(wait_seconds=20):
        assert not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text()


@pytest.mark.long
def test_asked_to_stop_it_saves_and_says_so(small_model: Path, small_data: Path, tmp_path: Path) -> None:
    run_dir, _ = make_run(tmp_path, small_model, small_data, max_steps=100_000)
    process = start(run_dir)
    wait_for(run_dir, 5, process)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == Exit.STOPPED
    last = max(step for step, _ in metrics(run_dir, "loss"))
    assert [each.name for each in run_dir.checkpoints.iterdir()] == [f"step-{last:06d}"]
    assert "Stopped as asked" in logs(run_dir)
    assert run_dir.read_error() is None


@pytest.mark.long
def test_asked_to_stop_while_it_waits_for_the_hub_it_ends_at_once_and_goes_on_there(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, _ = make_run(tmp_path / "run", "hf:me/tiny", small_data)
    with MiniHub() as hub:
        hub.add("model", "me/tiny", small_model)
        hub.stall("model.safetensors", 4321)
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": ""}
        process = start(run_dir, **environment)
        while not any(file.stat().st_size == 4321 for file in (tmp_path / "cache").rglob("*.incomplete")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code, errors = end(process)
        assert (code, "Traceback" in errors) == (Exit.STOPPED, False)
        assert run_dir.read_error() is None
        assert len(hub.downloads("model.safetensors")) == 1, "it did not wait until it could try again"
        hub.stalls.pop("model.safetensors")[1].set()
        hub.requests.clear()
        assert end(start(run_dir, **environment))[0] == Exit.FINISHED
        assert [request.range for request in hub.downloads("model.safetensors")] == ["bytes=4321-"]


@pytest.mark.long
def test_a_crash_leaves_its_traceback_and_may_be_tried_again(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, _ = make_run(tmp_path, small_model, small_data)
    run_dir.env.mkdir()  # env.json cannot be written
    code, errors = end(start(run_dir))
    assert code == 1
    assert "Traceback" in errors
    assert run_dir.read_error() is None


@pytest.mark.long
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    run_dir, _ = make_run(tmp_path / "run", small_model, small_data, save_every=2)
    size = (small_model / "model.safetensors").stat().st_size
    script = f"ulimit -f {size * 3 // 2 // 1024}; exec {sys.executable} -m training {run_dir.root}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == Exit.DISK, done.stderr  # the optimizer's file is twice the weights'
    failure = run_dir.read_error()
    assert failure is not None
    assert failure.message == "The disk is full: the checkpoint could not be written."
    assert not any(run_dir.checkpoints.iterdir())
    assert end(start(run_dir))[0] == Exit.FINISHED
    assert run_dir.model.is_dir()


KILLS = {
    "in the middle of the steps": [{"PREFLAB_FAILPOINT": "after_step:5"}],
    "before the first checkpoint": [{"PREFLAB_FAILPOINT": "after_step:1"}],
    "before a checkpoint's manifest": [{"PREFLAB_FAILPOINT": "before_manifest:3"}],
    "before a checkpoint is renamed": [{"PREFLAB_FAILPOINT": "before_checkpoint_rename:2"}],
    "after it is renamed": [{"PREFLAB_FAILPOINT": "after_checkpoint_rename:2"}],
    "while the old ones go": [{"PREFLAB_FAILPOINT": "before_prune:1"}],
    "before the model is renamed": [{"PREFLAB_FAILPOINT": "before_model_rename"}],
    "after the model stands": [{"PREFLAB_FAILPOINT": "after_export"}],
    "four times": [{"PREFLAB_FAILPOINT": f"after_step:{n}"} for n in (4, 5, 3, 4)],
}


@pytest.fixture(scope="session")
def uninterrupted(small_model: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run_dir, _ = make_run(tmp_path_factory.mktemp("whole"), small_model, small_data, **KILLED)
    assert end(start(run_dir))[0] == Exit.FINISHED
    return run_dir


KILLED: dict[str, Any] = {"max_steps": 12, "eval_every": 2, "save_every": 3, "sample_count": 1, "micro_batch_size": 3}


def same(run_dir: RunDir, whole: RunDir) -> None:
    assert metrics(run_dir, *EXACT) == metrics(whole, *EXACT)
    ours, theirs = (load_file(each.model / "model.safetensors") for each in (run_dir, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert sorted(each.name for each in run_dir.checkpoints.iterdir()) == sorted(
        each.name for each in whole.checkpoints.iterdir()
    )


@pytest.mark.long
@pytest.mark.parametrize("where", KILLS)
def test_a_killed_run_makes_the_same_curve_to_the_last_bit(
    where: str, uninterrupted: RunDir, small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    attempt = 0
    for attempt, environment in enumerate(KILLS[where], 1):
        run_dir, _ = make_run(tmp_path, small_model, small_data, attempt=attempt, **KILLED)
        assert end(start(run_dir, **environment))[0] == 137
    run_dir, _ = make_run(tmp_path, small_model, small_data, attempt=attempt + 1, **KILLED)
    assert end(start(run_dir))[0] == Exit.FINISHED
    same(run_dir, uninterrupted)


@pytest.mark.long
def test_so_does_one_that_is_killed_at_any_moment(
    uninterrupted: RunDir, small_model: Path, small_data: Path, tmp_path: Path
) -> None:
    for attempt, step in enumerate((2, 7, 10), 1):
        run_dir, _ = make_run(tmp_path, small_model, small_data, attempt=attempt, **KILLED)
        process = start(run_dir)
        wait_for(run_dir, step, process)
        process.kill()
        process.wait()
    run_dir, _ = make_run(tmp_path, small_model, small_data, attempt=4, **KILLED)
    assert end(start(run_dir))[0] == Exit.FINISHED
    same(run_dir, uninterrupted)
    assert {record.attempt for record in records(run_dir)} <= {1, 2, 3, 4}


PREFERRING: dict[str, Any] = {
    "stage": "dpo", "max_steps": 40, "eval_every": 2, "save_every": 3, "micro_batch_size": 3, "sample_count": 1,
    "sample_every": 4, "beta_warmup_steps": 8, "margin_clamp": 5.0, "learning_rate": 0.1, "early_stopping_patience": 3,
}  # fmt: skip


@pytest.mark.long
def test_a_killed_dpo_run_makes_the_same_curve_through_its_warm_up_to_its_early_stop(
    small_model: Path, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    whole, _ = make_run(tmp_path / "whole", small_model, data, **PREFERRING)
    assert end(start(whole))[0] == Exit.FINISHED
    assert "Stopped early" in logs(whole)
    last = max(step for step, key in metrics(whole) if key == "loss")
    assert 4 < last < 40
    # In the reference's pass, in the warm-up, and in the step before the last.
    kills = ("after_reference_shard:1", "after_step:1", "after_step:4", f"after_step:{last - 4}")
    for attempt, failpoint in enumerate(kills, 1):
        run_dir, _ = make_run(tmp_path / "run", small_model, data, attempt=attempt, **PREFERRING)
        assert end(start(run_dir, PREFLAB_FAILPOINT=failpoint))[0] == 137, failpoint
    run_dir, _ = make_run(tmp_path / "run", small_model, data, attempt=len(kills) + 1, **PREFERRING)
    assert end(start(run_dir))[0] == Exit.FINISHED
    same(run_dir, whole)
    assert "The reference reads 5 of 48 pairs" in logs(run_dir), "what it had read of the others was kept"
