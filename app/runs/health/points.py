"""A curve as numbers, and the robust sums that findings rest on: medians over windows, so that one odd point decides
nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

EVALS = 3  # evals (and samplings) that make one value: their median
TRAIN_LEAST, TRAIN_MOST = 20, 200  # steps that make one value of a train curve: a tenth of them, within these
TO_SIGMA = 1.4826  # a normal distribution's sigma over its median absolute deviation


class HasPoints(Protocol):
    """A curve of app/runs/series.py."""

    @property
    def step(self) -> list[int]: ...
    @property
    def value(self) -> list[float | None]: ...


@dataclass(frozen=True)
class Points:
    """The finite points of a curve: `step` (N,) rising, `value` (N,)."""

    step: Array
    value: Array

    @classmethod
    def of(cls, curve: HasPoints | None) -> Points:
        if curve is None:
            return cls(np.array([], dtype=np.int64), np.array([], dtype=np.float64))
        value = np.array(curve.value, dtype=np.float64)
        finite = np.isfinite(value)
        return cls(np.array(curve.step, dtype=np.int64)[finite], value[finite])

    def __len__(self) -> int:
        return len(self.step)

    def behind(self, step: int) -> Points:
        """Those after a step."""
        first = int(np.searchsorted(self.step, step, side="right"))
        return Points(self.step[first:], self.value[first:])

    def upto(self, step: int) -> Points:
        """Those at or before a step."""
        end = int(np.searchsorted(self.step, step, side="right"))
        return Points(self.step[:end], self.value[:end])

    @property
    def start(self) -> float:
        """The first value: at step 0, for evals."""
        return float(self.value[0])

    @property
    def last_step(self) -> int:
        return int(self.step[-1])

    def latest(self, count: int = EVALS) -> float:
        """The median of the last `count` values."""
        return float(np.median(self.value[-count:]))

    @property
    def window(self) -> int:
        """How many points make one value of a train curve of this length."""
        return min(max(TRAIN_LEAST, len(self) // 10), TRAIN_MOST)

    @property
    def settled(self) -> float:
        """A train curve's value now: the median of its last window."""
        return self.latest(self.window)

    def noise(self) -> float:
        """Sigma of what jumps from point to point, whatever the trend: from second differences. 0 below 4 points."""
        if len(self) < 4:
            return 0.0
        return float(TO_SIGMA * np.median(np.abs(np.diff(self.value, 2))) / np.sqrt(6))

    def smooth(self, count: int = EVALS) -> Array:
        """Medians over `count` (odd) neighbours; (N,). Ends have fewer."""
        half = count // 2
        padded = np.concatenate([np.full(half, np.nan), self.value, np.full(half, np.nan)])
        return np.asarray(np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, count), axis=1))
