"""The health of stored runs: read from the database, quickly however long they are, and told by API and command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert
from sqlmodel import Session, col, select

from app.db import Database
from app.models import Event, Run
from app.runs import series, states
from app.runs.health.of_run import METRICS, health_of, held_back
from tests.app.command import preflab
from tests.app.curves import PAIRS, fallen, healthy, upto
from tests.app.test_queries import add
from tests.training.small import make_model, make_run, records, train, write_pairs

Record = tuple[int, str, int | None, dict[str, Any]]  # attempt, kind, step, body
TOLD = f"9,500 pairs to train on, with 1 tokens, 1 of them scored; {PAIRS} are held back for eval."


def store(session: Session, told: Sequence[Record], stage: str = "dpo", **config: Any) -> Run:
    """A run with these events, a second apart."""
    add(session, 1, stage=stage, config=config, last_event=len(told), state=states.RUNNING)
    run = session.exec(select(Run).order_by(col(Run.id).desc())).first()
    assert run is not None
    rows = [
        {"run_id": run.id, "number": number, "seq": number, "attempt": attempt, "time": float(number), "kind": kind,
         "step": step, "body": orjson.dumps(body).decode()}
        for number, (attempt, kind, step, body) in enumerate(told, 1)
    ]  # fmt: skip
    session.connection().execute(insert(Event), rows)
    return run


def events(curves: dict[str, series.Curve]) -> list[Record]:
    """What a trainer would have written of these curves, a record a step and one an eval."""
    steps: dict[tuple[int, bool], dict[str, Any]] = {}
    for key, curve in curves.items():
        for step, value in zip(curve.step, curve.value, strict=True):
            steps.setdefault((step, key.startswith("eval_")), {})[key] = value
    return [
        (1, "log", None, {"message": TOLD}),
        *((1, "metrics", step, steps[step, is_eval]) for step, is_eval in sorted(steps)),
    ]


def long_run(steps: int, every: int = 50, attempt: int = 1, first: int = 1) -> list[Record]:
    """Steps of a dpo run, with an eval from time to time."""
    told: list[Record] = []
    for step in range(first, steps + 1):
        values = {
            "loss": 0.5 + 0.1 * attempt + 0.01 * (step * 7919 % 11),
            "accuracy": 0.75,
            "grad_norm": 5.0,
            "tokens": 512 * step,
        }
        values |= {"reward_chosen": -0.3, "reward_rejected": -0.9, "logp_chosen": -203.1, "logp_rejected": -199.0}
        values |= {"learning_rate": 1e-5, "tokens_per_second": 5000.1, "memory": 123_456_789, "epoch": step / steps}
        told.append((attempt, "metrics", step, values))
        if step % every == 0:
            told.append((attempt, "metrics", step, {"eval_loss": 0.6 + 0.1 / step, "eval_accuracy": 0.7}))
    return told


def test_the_health_of_a_stored_run_is_that_of_its_curves(any_database: Database) -> None:
    with any_database.write() as session:
        session.exec(delete(Event))
        run = store(session, events(healthy("dpo", seed=1) | fallen(140.0, 20.0)), beta=0.05)
        found = health_of(session, run)
    assert [each.title for each in found if each.level == "warning"] == ["Likelihood displacement"]
    assert any(f"{PAIRS} pairs" in each.sentence for each in found)


def test_how_many_pairs_are_held_back_is_read_as_training_says_it(
    tmp_path: Path, database: Database, torch_one_thread: None
) -> None:
    model, data = make_model(tmp_path / "model"), write_pairs(tmp_path / "pairs.jsonl")
    run_dir, made = make_run(tmp_path / "run", model, data, stage="reward", max_steps=1, eval_fraction=0.25)
    train(run_dir, made)
    logs = [(1, "log", None, each.body) for each in records(run_dir, "log")]
    with database.write() as session:
        found = held_back(session, store(session, logs).id or 0)
        assert held_back(session, store(session, [(1, "log", None, {"message": "Hello."})]).id or 0) is None
    assert found is not None
    assert 6 <= found <= 18, "about a quarter of 48"


def test_of_a_long_run_steps_are_left_out_but_no_eval_no_sample_no_attempt_and_nothing_late(
    any_database: Database,
) -> None:
    given_up: Record = (1, "metrics", 8002, {"kl": 0.1})
    told = [*long_run(8002), given_up, *long_run(9000, first=8003), *long_run(12_000, attempt=2, first=8001)]
    with any_database.write() as session:
        session.exec(delete(Event))
        run = store(session, told)
        whole = series.curves(series.read(session, run.id or 0)[0], METRICS)
        few = series.read(session, run.id or 0, most=5000)[0]
        again = series.read(session, run.id or 0, most=len(told))[0]
    thinned = series.curves(few, METRICS)
    assert len(again) == len(told)
    assert len(few) < 8000 < len(told)
    for key, curve in whole.items():
        points = dict(zip(curve.step, curve.value, strict=True))
        assert set(zip(thinned[key].step, thinned[key].value, strict=True)) <= points.items()
    assert thinned["eval_loss"] == whole["eval_loss"]
    assert thinned["loss"].value[-3900:] == whole["loss"].value[-3900:]
    assert thinned["loss"].value[:400] == whole["loss"].value[:400]
    assert "kl" not in thinned, "it was of an attempt that was replaced"


def test_the_health_of_a_run_of_a_hundred_thousand_steps_is_quick(database: Database) -> None:
    with database.write() as session:
        run = store(session, long_run(100_000))
    with database.read() as session:
        began = time.perf_counter()
        found = health_of(session, session.merge(run))
        took = time.perf_counter() - began
    assert found
    assert took < 1.0  # 0.3 s; machines that run tests are busy


def test_the_api_tells_the_worst_first_and_nothing_of_a_run_that_has_measured_nothing(
    database: Database, script: TestClient
) -> None:
    with database.write() as session:
        bad = store(session, events(healthy("dpo") | fallen(140.0, 20.0))).id
        new = store(session, events({})).id
    rows = script.get(f"/api/v1/runs/{bad}/health").json()["rows"]
    assert list(rows[0]) == ["metric", "level", "title", "sentence", "advice", "step"]
    assert [row["level"] for row in rows] == ["warning"] + ["good"] * (len(rows) - 1)
    assert script.get(f"/api/v1/runs/{new}/health").json() == {"rows": []}
    assert script.get("/api/v1/runs/999/health").status_code == 404


@pytest.mark.parametrize("step", [0, 600])
def test_the_command_line_says_it_too(database: Database, step: int) -> None:
    with database.write() as session:
        run = store(session, events(upto(healthy("reward"), step)), stage="reward").id
    shown = preflab("runs", "show", str(run))
    assert shown.code == 0, shown.err
    expected = "good: Learns. The eval loss fell from 0.693 to 0.602" if step else "note: Too early to say."
    assert expected in shown.out
    assert preflab("runs", "show", str(run), "--json").json["health"][0]["level"] == ("good" if step else "note")
