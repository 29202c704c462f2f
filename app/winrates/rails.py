"""Intervals on a thin line, in per cent of its width, for templates to draw. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEP = 0.1  # a line of rates ends at a multiple of it


@dataclass(frozen=True)
class Rail:
    """Where a value stands and its interval lies: `at`, `left`, `width` in per cent; no interval: `width` is None."""

    at: float
    left: float | None = None
    width: float | None = None


@dataclass(frozen=True)
class Scale:
    """What a line goes from and to."""

    low: float
    high: float

    def rail(self, value: float, low: float | None, high: float | None) -> Rail:
        """What lies beyond the line ends at its end."""
        if low is None or high is None:
            return Rail(self._place(value))
        left, right = self._place(low), self._place(high)
        return Rail(self._place(value), left, round(right - left, 2))

    def _place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


def of_rates(values: Iterable[float | None]) -> Scale:
    """A line with 0.5 in its middle that takes all these rates in: from 0.4 to 0.6 at least, from 0 to 1 at most."""
    far = max((abs(value - 0.5) for value in values if value is not None), default=0.0)
    half = min(0.5, max(STEP, STEP * math.ceil(round(far / STEP, 9))))
    return Scale(round(0.5 - half, 3), round(0.5 + half, 3))


def of_elo(values: Iterable[float | None], middle: float = 1000.0) -> Scale:
    """A line with the mean model in its middle that takes all these in."""
    far = max((abs(value - middle) for value in values if value is not None), default=0.0)
    half = max(50.0, 50.0 * math.ceil(far / 50))
    return Scale(middle - half, middle + half)
