"""Bad input that only the trainer can see, and disks that fill up while it trains."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.db import Database
from app.runs import service, states
from app.settings import Settings
from tests.app.test_bad_input import fill, small_disk
from tests.worker.helpers import claim, launch, row, shipped_exactly_once, until
from training.errors import Exit
from training.rundir import RunDir
from worker.devices import CPU
from worker.launcher import Attempt

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.training.small import make_model

    return make_model(tmp_path_factory.mktemp("bad") / "model")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def another_token(folder: Path) -> None:
    token = {
        "content": "fox",
        "special": False,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
    }
    change(folder / "tokenizer_config.json", added_tokens_decoder={"290": token})


def lose_weights(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")


TOLD: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a tokenizer that reloads with other ids": (another_token, "as another tokenizer", "tokenizer_config.json"),
    "a kind that transformers does not know": (
        lambda folder: change(folder / "config.json", model_type="nonsense"),
        "model type `nonsense`",
        "Save it again",
    ),
    "weights that are missing": (lose_weights, "lack 1 of its weights, model.norm.weight", "another model"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("what", TOLD)
def test_what_only_the_trainer_can_see_is_said_before_the_first_step(what: str, model: Path, tmp_path: Path) -> None:
    from tests.training.small import make_run, metrics, write_chats

    spoil, message, hint = TOLD[what]
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    spoil(folder)
    run_dir, _ = make_run(tmp_path / "run", folder, write_chats(tmp_path / "chats.jsonl"))
    command = [sys.executable, "-m", "training", str(run_dir.root)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PREFLAB_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.MODEL and "Traceback" not in done.stderr, done.stderr
    failure = run_dir.read_error()
    assert failure is not None and message in failure.message and hint in failure.hint, failure
    assert metrics(run_dir) == {} and not run_dir.model.exists() and not any(run_dir.checkpoints.glob("*"))


@pytest.mark.long
@pytest.mark.parametrize("save_every", [3, 100_000], ids=["a checkpoint", "the journal"])
def test_a_disk_that_fills_up_fails_the_run_and_it_goes_on_when_there_is_room(
    save_every: int, database: Database, settings: Settings
) -> None:
    settings = settings.model_copy(update={"beat_seconds": 0.05, "lease_seconds": 30.0, "threads": 1})
    run_id = launch(
        database, settings, max_steps=2000, max_length=32, batch_size=1, save_every=save_every, eval_fraction=0,
        sample_count=0, precision="fp32",
    )  # fmt: skip
    with small_disk(settings.runs_folder, 6000):
        work = started(database, settings)
        until(lambda: turned(work) and row(database, run_id).step >= 5, 60)
        filler = fill(settings.runs_folder)
        until(lambda: turned(work) and work.process is not None and work._ended(0), 60)
        work.kill()  # takes its exit code
        work.end()
        failed = row(database, run_id)
        assert failed.state == states.FAILED and failed.attempt == 1 and failed.error is not None
        assert failed.error["code"] == "disk" and failed.error["message"].startswith("The disk is full")
        assert failed.error["hint"].startswith("Free some space, then resume")
        assert not list(RunDir(settings.run_folder(run_id)).checkpoints.glob(".*"))

        filler.unlink()
        with database.write() as session:
            service.resume(session, run_id)
        work = started(database, settings)
        until(lambda: turned(work) and row(database, run_id).step > failed.step, 60)
        work.stop_wanted = True
        until(lambda: turned(work) and work._ended(0), 60)
        work.kill()  # takes its exit code
        work.end()
        assert row(database, run_id).state == states.STOPPED
        assert shipped_exactly_once(database, settings, run_id)


def started(database: Database, settings: Settings) -> Attempt:
    run = claim(database)
    assert run is not None
    work = Attempt(database, settings, run, CPU)
    work._prepare()
    work._start()
    return work


def turned(work: Attempt) -> bool:
    """One round of the watch."""
    with contextlib.suppress(ProcessLookupError):
        work.turn(time.monotonic())
    return True
