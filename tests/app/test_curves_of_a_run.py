"""The curves that a page shows of a run that was cut short: those of one that never was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.runs.series import Metrics, curves
from tests.training.small import make_model, make_run, metrics, records, train, write_chats
from training.rundir import RunDir
from training.stages.sft import SftTask

KEYS = ("loss", "eval_loss", "grad_norm", "tokens")
SETTINGS: dict[str, Any] = {"max_steps": 9, "eval_every": 4, "save_every": 3}


def shown(run_dir: RunDir) -> dict[tuple[int, str], float | None]:
    """What the product makes of the run's records, by step and name."""
    read = [
        Metrics(each.attempt, each.time, each.step or 0, each.body["values"]) for each in records(run_dir, "metrics")
    ]
    return {
        (step, key): value
        for key, curve in curves(read, KEYS).items()
        for step, value in zip(curve.step, curve.value, strict=True)
    }


def test_a_run_that_was_killed_and_stopped_in_an_eval_shows_the_curve_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = make_model(tmp_path / "model"), write_chats(tmp_path / "chats.jsonl")
    whole_dir, whole = make_run(tmp_path / "whole", model, data, **SETTINGS)
    train(whole_dir, whole)

    def attempt(number: int, stop_after: int | None = None) -> bool:
        run_dir, run = make_run(tmp_path / "run", model, data, attempt=number, **SETTINGS)
        return train(run_dir, run, stop_after)

    run_dir = RunDir(tmp_path / "run")
    with monkeypatch.context() as patch:
        steps, parts = iter(range(1, 100)), SftTask.parts

        def dies(self: SftTask, *rest: Any) -> Any:
            if next(steps) == 6:
                raise ArithmeticError
            return parts(self, *rest)

        patch.setattr(SftTask, "parts", dies)
        with pytest.raises(ArithmeticError):  # in step 6, after step 5; the last checkpoint is step 3's
            attempt(1)
    assert attempt(2, stop_after=2)  # in the eval of step 4, which began the attempt anew
    assert max(step for step, _ in shown(run_dir)) == 4, "step 5 is of an attempt that was given up"
    assert shown(run_dir) == metrics(run_dir, *KEYS)
    assert attempt(3, stop_after=3)  # it begins with that eval
    assert records(run_dir, "metrics")[-2].body["values"].keys() == {"eval_loss"}
    assert shown(run_dir) == metrics(run_dir, *KEYS)
    assert not attempt(4)
    assert shown(run_dir) == metrics(run_dir, *KEYS) == metrics(whole_dir, *KEYS)
