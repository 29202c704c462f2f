"""An augment run that is killed in any of its phases, and goes on, leaves the same files byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.augmenting.making import make_augment, outputs
from tests.training.augmenting.test_augment_api import run_with, teach
from tests.training.chat_server import chat_server
from tests.training.small import logs, metrics
from training.errors import Exit
from training.rundir import RunDir, RunFile

ROOT = Path(__file__).parents[3]


def start(run_dir: RunDir, **environment: str) -> subprocess.Popen[str]:
    told = {**os.environ, "PREFLAB_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "training", str(run_dir.root)], cwd=ROOT, env=told, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> int:
    errors = process.communicate(timeout=180)[1]
    assert "Traceback" not in errors, errors
    return process.returncode


def attempt(run_dir: RunDir, run: RunFile, number: int, failpoint: str = "") -> int:
    run_dir.write_config(run.model_copy(update={"attempt": number}))
    return end(start(run_dir, PREFLAB_FAILPOINT=failpoint))


PLACES = [
    "before_writing_kept:2", "after_writing_kept:3", "before_answering_kept:1", "after_answering_kept:4",
    "before_judging_kept", "after_judging_kept", "before_outputs", "between_outputs",
]  # fmt: skip


@pytest.mark.long
def test_killed_in_every_phase_one_after_another_it_makes_the_same(
    tmp_path: Path, writer: Path, reward_model: Path, data: Path, ask: str
) -> None:
    models = f"path:{writer}", data, f"path:{reward_model}"
    whole, run = make_augment(tmp_path / "whole", *models, writing=ask)
    assert attempt(whole, run, 1) == Exit.FINISHED
    run_dir, run = make_augment(tmp_path / "run", *models, writing=ask)
    for number, place in enumerate(PLACES, 1):
        assert attempt(run_dir, run, number, place) == 137, place
        assert not run_dir.pairs.exists()
    assert attempt(run_dir, run, len(PLACES) + 1) == Exit.FINISHED
    assert outputs(run_dir) == outputs(whole)
    # What was computed and not kept was computed again: a batch of prompts, one of answers, the judge's one.
    repeated = max(value for (_, name), value in metrics(run_dir, "repeated").items())
    assert 0 < repeated <= 8 + 8 + 256
    assert "were under way when the run was interrupted" in logs(run_dir)


@pytest.mark.long
def test_killed_at_any_time_it_makes_the_same_and_pays_only_for_what_was_in_flight(tmp_path: Path, data: Path) -> None:
    """Kill -9 from outside, wherever it is; the server answers the same to the same."""
    with chat_server(teach) as server:
        whole, run = run_with(server, tmp_path / "whole", data, concurrency=3)
        assert attempt(whole, run, 1) == Exit.FINISHED
        once = len(server.asked)
        server.asked.clear()
        run_dir, run = run_with(server, tmp_path / "run", data, concurrency=3)
        kills = 0
        for number, asked_until in enumerate((2, 7, 20, 45), 1):
            run_dir.write_config(run.model_copy(update={"attempt": number}))
            process = start(run_dir)
            while len(server.asked) < asked_until and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            process.communicate()
        assert attempt(run_dir, run, 9) == Exit.FINISHED
        assert kills == 4
        assert once <= len(server.asked) <= once + 4 * 3, "three at once were in flight, at each of four kills"
        repeated = max(value for (_, name), value in metrics(run_dir, "repeated").items())
        assert len(server.asked) - once <= repeated <= 4 * 3, "what may have been paid for twice is counted"
    assert outputs(run_dir) == outputs(whole)
