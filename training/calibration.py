"""Whether a reward model is as sure as it is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 10


def calibration_error(margins: NDArray[np.float64]) -> float:
    """Expected calibration error (Naeini et al. 2015) of sigmoid(margin) as the probability that chosen is better.

    margins (N,): reward of chosen minus reward of rejected. A pair and its mirror image say the same, so what counts is
    how sure the model is of the answer that it prefers, 0.5 to 1, in ten bins of equal width, against how often that
    one is the chosen one; a margin of 0 is half right. Returns 0 (as sure as right) to 0.5.
    """
    sure = 1 / (1 + np.exp(-np.abs(margins)))
    right = np.where(margins == 0, 0.5, margins > 0)
    bins = np.minimum((2 * BINS * (sure - 0.5)).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    gaps = np.abs(np.bincount(bins, right, BINS) - np.bincount(bins, sure, BINS))
    return float(gaps[counts > 0].sum() / len(margins))
