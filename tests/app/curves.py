"""Curves of made-up runs: healthy ones, with or without noise, and shapes to replace some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from app.runs.health import Finding, read_health
from app.runs.series import Curve

STEPS, EVERY = 600, 50  # an eval at step 0, 50, .., 600
EVALS = STEPS // EVERY + 1
PAIRS = 500

# Where a curve begins, where it goes to, and how noisy it is: as runs on real data look.
SFT = {"loss": (2.5, 1.8, 0.1), "eval_loss": (2.5, 1.9, 0.003), "grad_norm": (3.0, 1.5, 0.3)}
RANKS = {
    "loss": (0.693, 0.55, 0.04), "eval_loss": (0.693, 0.6, 0.003), "grad_norm": (6.0, 5.0, 1.0),
    "accuracy": (0.5, 0.75, 0.08), "eval_accuracy": (0.5, 0.7, 0.01), "eval_margin": (0.0, 0.6, 0.01),
    "reward_chosen": (0.0, -0.3, 0.2), "reward_rejected": (0.0, -0.9, 0.2),
    "eval_reward_chosen": (0.0, -0.3, 0.01), "eval_reward_rejected": (0.0, -0.9, 0.01),
}  # fmt: skip
DPO = RANKS | {
    "logp_chosen": (-200.0, -203.0, 20.0), "eval_logp_chosen": (-200.0, -203.0, 0.5),
    "logp_rejected": (-190.0, -199.0, 20.0), "eval_logp_rejected": (-190.0, -199.0, 0.5),
    "kl": (0.0, 0.05, 0.005), "answer_length": (70.0, 72.0, 4.0), "answers_ended": (0.7, 0.7, 0.05),
}  # fmt: skip
REWARD = RANKS | {"eval_calibration_error": (0.05, 0.05, 0.01)}
STAGES = {"sft": SFT, "dpo": DPO, "reward": REWARD}
SPARSE = ("kl", "answer_length", "answers_ended")
WITHIN = {"accuracy": (0.0, 1.0), "eval_accuracy": (0.0, 1.0), "answers_ended": (0.0, 1.0), "kl": (0.0, 9.0)}


def curve(values: Sequence[float], every: int = 1, first: int = 1) -> Curve:
    return Curve(step=[first + every * n for n in range(len(values))], value=[float(value) for value in values])


def by_step(values: Sequence[float]) -> Curve:
    """From step 1 on."""
    return curve(values)


def by_eval(values: Sequence[float]) -> Curve:
    """At step 0, and so on."""
    return curve(values, EVERY, 0)


def flat(value: float) -> Curve:
    """A train curve that stands at a value."""
    return by_step([value] * STEPS)


def settles(start: float, end: float, count: int = EVALS) -> Curve:
    """Evals that go from a start to an end in a line, and have stood there since the middle."""
    return by_eval([start + (end - start) * min(1.0, n / (count // 2)) for n in range(count)])


def fallen(fall: float, grown: float = 30.0, start: float = -200.0) -> dict[str, Curve]:
    """Log-probabilities of chosen answers that have fallen by so much, and a margin that has grown by so much."""
    return {
        "eval_logp_chosen": settles(start, start - fall),
        "eval_logp_rejected": settles(start, start - fall - grown),
    }


def is_sparse(key: str) -> bool:
    return key.startswith("eval_") or key in SPARSE


def healthy(stage: str, seed: int | None = None, noise: float = 1.0) -> dict[str, Curve]:
    """All curves of a run that goes well; noisy with a seed."""
    random = np.random.default_rng(seed)
    made = {}
    for key, (start, end, sigma) in STAGES[stage].items():
        steps = np.arange(0, STEPS + 1, EVERY) if is_sparse(key) else np.arange(1, STEPS + 1)
        values = start + (end - start) * (1 - np.exp(-steps / 150))
        if seed is not None:
            values = np.clip(values + noise * sigma * random.normal(size=len(steps)), *WITHIN.get(key, (-1e9, 1e9)))
        made[key] = (by_eval if is_sparse(key) else by_step)(list(values))
    return made


def upto(curves: Mapping[str, Curve], step: int) -> dict[str, Curve]:
    """The curves as they stood at a step."""
    cut = {}
    for key, each in curves.items():
        count = sum(one <= step for one in each.step)
        if count:
            cut[key] = Curve(each.step[:count], each.value[:count])
    return cut


def said(stage: str, curves: Mapping[str, Curve], pairs: int | None = PAIRS, **config: Any) -> dict[str, Finding]:
    """What is said of a run, by title."""
    found = read_health(stage, config, curves, pairs)
    by_title = {each.title: each for each in found}
    assert len(by_title) == len(found), "a thing is said twice"
    return by_title


Shape = Callable[[float], dict[str, Curve]]


def of(shape: Callable[[float], Curve], *keys: str) -> Shape:
    """A shape for some metrics, by its amount."""
    return lambda amount: {key: shape(amount) for key in keys}
