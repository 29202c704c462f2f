"""The win rate at equal length, by a logistic regression (after AlpacaEval 2: Dubois et al. 2024, arXiv:2404.04475).
Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CONVERGED = 1e-12
STEPS = 100


def length_controlled_rate(preferences: npt.ArrayLike, deltas: npt.ArrayLike) -> float | None:
    """What the win rate would be, were the model's answers as long as the baseline's.

    preferences: (n,) in [0, 1], soft labels; deltas: (n,), characters of the model's answer minus the baseline's.
    Unpenalised regression on a constant and tanh(delta / sd(delta)), sd with n - 1; the rate is the sigmoid of the
    constant. Where all deltas are equal, length explains nothing: the rate is the mean. None where the likelihood has
    no finite maximum (a length that parts wins from losses, no wins, no losses), or no single one.
    """
    values, lengths = np.asarray(preferences, dtype=np.float64), np.asarray(deltas, dtype=np.float64)
    if values.ndim != 1 or values.shape != lengths.shape or not len(values):
        raise ValueError("A length-controlled win rate needs one preference and one difference of length a prompt.")
    if not ((values >= 0) & (values <= 1)).all() or not np.isfinite(lengths).all():
        raise ValueError("Preferences must be numbers from 0 to 1, and differences of length finite.")
    if (lengths == lengths[0]).all():
        return float(values.mean())
    term = np.tanh(lengths / lengths.std(ddof=1))
    if _separated(values, term):
        return None
    return _rate_at_zero(values, term)


def _separated(values: Array, term: Array) -> bool:
    """Whether a line through the (one) dimension has all that won on one side and all that lost on the other; a
    preference between 0 and 1 is both. Then the likelihood rises for ever. Also where the term does not vary."""
    won, lost = term[values > 0], term[values < 1]
    if not len(won) or not len(lost) or term.min() == term.max():
        return True
    return bool(won.min() >= lost.max() or lost.min() >= won.max())


def _rate_at_zero(values: Array, term: Array) -> float | None:
    """Newton's method on the (concave) likelihood, in the centred term: (n,), (n,). None without convergence."""
    from scipy.special import expit

    centre = term.mean()
    design = np.stack([np.ones_like(term), term - centre], axis=1)
    weights = np.zeros(2)
    for _ in range(STEPS):
        fitted = expit(design @ weights)
        gradient = design.T @ (values - fitted)
        curvature = (design.T * (fitted * expit(-(design @ weights)))) @ design
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return None
        # Far from the maximum a whole step may overshoot.
        weights = weights + step * min(1.0, 2.0 / float(np.abs(step).max() or 1.0))
        if np.abs(step).max() <= CONVERGED * (1 + np.abs(weights).max()):
            rate = float(expit(weights[0] - weights[1] * centre))
            return rate if math.isfinite(rate) else None
    return None
