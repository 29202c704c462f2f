"""Reads a run's curves as one who has seen many: what is well, what is odd, what to do. Pure; docs/health.md.

evidence.py   the curves and settings        loss.py      learning, overfitting, jumps
points.py     medians and noise              pairs.py     ranking, log-probabilities, clamp, calibration
finding.py    what is said                   answers.py   length, ends, KL
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.runs.health.answers import read_answers
from app.runs.health.evidence import Evidence
from app.runs.health.finding import LEVELS, Finding, at, number
from app.runs.health.loss import LEAST_EVALS, read_loss
from app.runs.health.pairs import read_pairs
from app.runs.health.points import HasPoints

__all__ = ["Finding", "read_health"]

TRAINING = frozenset({"sft", "dpo", "reward"})


def read_health(
    stage: str, config: Mapping[str, Any], curves: Mapping[str, HasPoints], pairs: int | None = None
) -> list[Finding]:
    """What a run's curves say, the worst first. `config`: its settings; `curves`: all of its points, by metric;
    `pairs`: how many are held back for eval, where that is known (without it, nothing is said of chance).

    A run that is too young for any of it gets one note on what will be seen first; of a run that trains nothing,
    nothing is said.
    """
    if stage not in TRAINING:
        return []
    run = Evidence(stage, config, curves, pairs)
    found = read_loss(run)
    if run.prefers:
        found += read_pairs(run)
    if stage == "dpo":
        found += read_answers(run)
    if not found:
        found = _young(run)
    return sorted(found, key=lambda each: LEVELS.index(each.level))


def _young(run: Evidence) -> list[Finding]:
    """One note, while there is too little to go by."""
    evals, step = run["eval_loss"], run.last_step
    if (not len(evals) and not len(run["loss"])) or (len(evals) >= LEAST_EVALS and step > run.warm):
        return []
    start = ""
    if run.stage == "dpo" and len(evals) and not run.setting("reference_model"):
        start = f"At step 0 the model is its reference: margin 0, loss {number(run.chance)}. The accuracy there says nothing, "
        start += "since margins of 0 differ by rounding alone. "
    if step <= run.warm:
        what = "beta" if (run.setting("beta_warmup_steps") or 0) >= run.warm else "the learning rate"
        wait = f"{what[0].upper()}{what[1:]} rises until {at(run.warm)}; little moves before."
    elif len(evals):
        wait = f"{len(evals)} of the {LEAST_EVALS} evals are there that a first word on them takes (eval_every: {run.setting('eval_every')})."
    else:
        wait = f"After {step:,} steps there is little to go by."
    return [Finding("eval_loss" if len(evals) else "loss", "note", "Too early to say", start + wait, step=step)]
