"""The health of a stored run: its curves and what its log says of the pairs held back, read from the database."""

from __future__ import annotations

import re
from typing import Any

import orjson
from sqlmodel import Session, col, select

from app.models import Event, Run
from app.runs import series
from app.runs.health import Finding, read_health

METRICS = (
    "loss", "eval_loss", "grad_norm", "accuracy", "eval_accuracy", "eval_margin", "reward_chosen", "reward_rejected",
    "eval_reward_chosen", "eval_reward_rejected", "logp_chosen", "eval_logp_chosen", "eval_logp_rejected", "clamped",
    "kl", "answer_length", "answers_ended", "eval_calibration_error",
)  # fmt: skip
MOST = 20_000  # events that are read: half of them of steps from place to place, the others as they come
HELD_BACK = re.compile(r"([\d,]+) are held back for eval")  # as training/preparation.py says it


def health_of(session: Session, run: Run) -> list[Finding]:
    """What a run's curves say."""
    assert run.id is not None
    metrics, _ = series.read(session, run.id, MOST)
    return read_health(run.stage, run.config, series.curves(metrics, METRICS), held_back(session, run.id))


def held_back(session: Session, run_id: int) -> int | None:
    """How many examples or pairs are held back for eval, by the run's log; None where it does not say."""
    told = select(Event.body).where(Event.run_id == run_id, Event.kind == "log", col(Event.body).contains("held back"))
    for body in session.exec(told.order_by(col(Event.number).desc()).limit(20)):
        content: dict[str, Any] = orjson.loads(body)
        found = HELD_BACK.search(str(content.get("message", "")))
        if found:
            return int(found[1].replace(",", ""))
    return None
