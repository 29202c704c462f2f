"""Win rates and paired comparisons of models. Pure: preferences in, frozen records out.

A preference is a number in [0, 1]: 1, the model's answer is better than the baseline's; 0.5, a tie. Here it is one
a prompt: several verdicts of one judge on one prompt were averaged before. Rates and differences are fractions.
Whatever is random is seeded, so that the same preferences always give the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RESAMPLES = 10_000  # of a bootstrap
FLIPS = 10_000  # of signs
FEW = math.floor(math.log2(FLIPS))  # prompts: up to so many, all flips of their signs are tried
SEED = 0
TIE = 1e-9  # a mean of votes this near to 0.5 is a tie: (0.1 + 0.2 + 1.2) / 3 is not exactly 0.5
ROUNDING = 1e-10  # sums of floats that differ by less, relatively, are equal
BLOCK = 2**22  # numbers held at a time, in one array

Z_TWO_SIDED = NormalDist().inv_cdf(0.975)
Z_POWER = NormalDist().inv_cdf(0.8)
# P(sum of signs times a_i >= x) <= RADEMACHER * P(N(0, sum of a_i squared) >= x), whatever the a_i:
# Bentkus and Dzindzalieta, Bernoulli 21 (2015) 1231, doi:10.3150/14-BEJ603.
RADEMACHER = 1 / (4 * NormalDist().cdf(-math.sqrt(2)))
MANY = 100  # comparisons in one table: beyond them, Holm asks for smaller p-values than the flips can give


@dataclass(frozen=True)
class Rate:
    """A win rate over n prompts. None where one prompt is too few to say."""

    n: int
    wins: int
    losses: int
    ties: int
    win_rate: float
    standard_error: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Comparison:
    """Model a against model b by their win rates on the n prompts that both have: difference = a's minus b's.

    `p_value_holm` is adjusted for all comparisons of the same table; `prompts_needed` shows this difference with 80 %
    power at p < 0.05, and is None where there is no difference. The interval is None for one prompt.
    """

    n: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    p_value: float
    p_value_holm: float
    prompts_needed: int | None


def win_rate(preferences: npt.ArrayLike) -> Rate:
    """The win rate of preferences (n,), one a prompt, n >= 1.

    The interval (95 %) is Wilson's where all preferences are 0 or 1, else a percentile bootstrap. By simulation the
    latter holds 93.7 to 95.5 % at 100 prompts and 94.6 to 95.5 % at 500, for rates of 0.1 to 0.9, with ties and
    without (tests/app/winrates/test_coverage.py). It is too narrow for a handful of prompts, as bootstraps are.
    """
    return win_rates([preferences])[0]


def win_rates(preferences: Sequence[npt.ArrayLike]) -> list[Rate]:
    """`win_rate` of several models at once: those with as many prompts share their resamples."""
    values = [_checked(each) for each in preferences]
    intervals = [wilson(float(each.mean()), len(each)) if _binary(each) else None for each in values]
    rates = [_rate(each, interval) for each, interval in zip(values, intervals, strict=True)]
    lacking = [k for k, interval in enumerate(intervals) if interval is None and len(values[k]) > 1]
    for n in {len(values[k]) for k in lacking}:
        alike = [k for k in lacking if len(values[k]) == n]
        low, high = bootstrap_interval(np.stack([values[k] for k in alike], axis=1))
        for k, ci_low, ci_high in zip(alike, low, high, strict=True):
            rates[k] = replace(rates[k], ci_low=float(ci_low), ci_high=float(ci_high))
    return rates


def _rate(values: Array, interval: tuple[float, float] | None) -> Rate:
    n = len(values)
    wins, losses = int((values > 0.5 + TIE).sum()), int((values < 0.5 - TIE).sum())
    error = float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    low, high = interval or (None, None)
    return Rate(n, wins, losses, n - wins - losses, float(values.mean()), error, low, high)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n yes-or-no outcomes (JASA 22 (1927) 209)."""
    z2 = Z_TWO_SIDED**2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_TWO_SIDED / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(values: Array) -> tuple[Array, Array]:
    """The percentile bootstrap's 95 % interval of each column's mean. values: (n, m); answers: (m,), (m,).

    The resamples depend on n alone, so 1 - values has the mirrored interval.
    """
    n, columns = values.shape
    low, high = np.empty(columns), np.empty(columns)
    width = max(1, BLOCK // RESAMPLES)
    for start in range(0, columns, width):
        some = slice(start, start + width)
        means = np.concatenate([values.T[some] @ counts.T for counts in _resamples(n)], axis=1) / n
        low[some], high[some] = np.quantile(means, [0.025, 0.975], axis=1)
    return low, high


def _resamples(n: int) -> Iterator[Array]:
    """How often each of n values is drawn in each resample, as blocks of (rows, n)."""
    random = np.random.default_rng(SEED)
    rows = max(1, BLOCK // n)
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        drawn = random.integers(n, size=(size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def margin_weighted_rate(preferences: npt.ArrayLike, margins: npt.ArrayLike) -> float | None:
    """The mean preference, each weighing as much as the judge's margin is large. Both (n,). None without weight."""
    values, weights = _checked(preferences), np.abs(np.asarray(margins, dtype=np.float64))
    if weights.shape != values.shape or not np.isfinite(weights).all():
        raise ValueError("Each preference needs one finite margin.")
    total = float(weights.sum())
    return float(weights @ values) / total if total > 0 else None


def compare(a: npt.ArrayLike, b: npt.ArrayLike) -> Comparison:
    """Model a against model b: preferences (n,) against the same baseline on the same prompts; NaN where missing."""
    both = compare_all(np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)]))
    if not both:
        raise ValueError("The two models share no prompt.")
    return both[0, 1]


def compare_all(
    preferences: npt.ArrayLike, pairs: Iterable[tuple[int, int]] | None = None
) -> dict[tuple[int, int], Comparison]:
    """All pairs (or the given ones) of models that share a prompt, as one table. preferences: (models, prompts), NaN
    where missing.

    Paired differences a prompt; their t interval (95 %); a two-sided p-value by flipping their signs: all 2^n ways
    where these are 10,000 or fewer, else 10,000 at random, (1 + hits) / (1 + 10,000). That is never below 0.0001,
    and times more than 100 comparisons it would never pass Holm. So in such a table a pair that no flip reached has
    a bound of the exact p-value instead, where that is smaller (RADEMACHER).
    """
    table = np.asarray(preferences, dtype=np.float64)
    if table.ndim != 2 or (table < 0).any() or (table > 1).any():
        raise ValueError("Preferences must be numbers from 0 to 1, or NaN, with a row for each model.")
    chosen = list(combinations(range(len(table)), 2) if pairs is None else pairs)
    found: dict[tuple[int, int], Comparison] = {}
    width = max(1, BLOCK // max(1, table.shape[1]))
    for start in range(0, len(chosen), width):
        some = chosen[start : start + width]
        first, second = np.array(some).T
        records = _compared((table[first] - table[second]).T, many=len(chosen) > MANY)
        found |= {pair: record for pair, record in zip(some, records, strict=True) if record.n}
    adjusted = holm([each.p_value for each in found.values()])
    return {pair: replace(each, p_value_holm=float(p)) for (pair, each), p in zip(found.items(), adjusted, strict=True)}


def _compared(differences: Array, many: bool) -> list[Comparison]:
    """A record for each column of differences (prompts, m), before Holm."""
    n, mean, sd, half = paired(differences)
    p_values = _p_values(differences, many)
    return [
        Comparison(
            n=int(n[k]),
            difference=float(mean[k]),
            ci_low=float(mean[k] - half[k]) if n[k] > 1 else None,
            ci_high=float(mean[k] + half[k]) if n[k] > 1 else None,
            p_value=float(p_values[k]),
            p_value_holm=float(p_values[k]),
            prompts_needed=prompts_needed(float(mean[k]), float(sd[k])) if n[k] > 1 else None,
        )
        for k in range(len(n))
    ]


def paired(differences: Array) -> tuple[Array, Array, Array, Array]:
    """n, mean, standard deviation and half the t interval (95 %) of each column (prompts, m), NaN where missing.
    All (m,); sd and half are 0 where n < 2. What is 0 but for rounding is 0."""
    from scipy.special import stdtrit

    present = ~np.isnan(differences)
    values, n = np.where(present, differences, 0.0), present.sum(axis=0)
    size = np.abs(values).sum(axis=0) / np.maximum(n, 1)
    mean = values.sum(axis=0) / np.maximum(n, 1)
    mean[np.abs(mean) <= ROUNDING * size] = 0.0
    sd = np.sqrt((np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / np.maximum(n - 1, 1))
    sd[sd <= ROUNDING * size] = 0.0
    return n, mean, sd, stdtrit(np.maximum(n - 1, 1), 0.975) * sd / np.sqrt(np.maximum(n, 1))


def prompts_needed(difference: float, sd: float) -> int | None:
    """Prompts that show a difference with 80 % power at p < 0.05, by the t interval; by flips of plain wins somewhat
    less (76 % at 200 prompts, 78 % at 1,500). sd: of the differences. None for no difference."""
    return math.ceil(((Z_TWO_SIDED + Z_POWER) * sd / difference) ** 2) if difference else None


def _p_values(differences: Array, many: bool) -> Array:
    """Two-sided, of each column (prompts, m), NaN where missing: by all flips of signs, or by 10,000."""
    present = ~np.isnan(differences)
    values, n = np.where(present, differences, 0.0), present.sum(axis=0)
    p_values = np.ones(values.shape[1])
    few = n <= FEW
    for size in np.unique(n[few & (n > 0)]):
        alike = few & (n == size)
        packed = values.T[alike][present.T[alike]].reshape(-1, size).T
        p_values[alike] = _hits(packed, _all_signs(size)) / 2.0**size
    if not few.all():
        # A missing prompt is a difference of 0: flipping its sign changes no sum.
        rest = values[:, ~few]
        hits = _hits(rest, _some_signs(len(rest)))
        found = (1 + hits) / (1 + FLIPS)
        p_values[~few] = np.where(hits > 0, found, np.minimum(found, rademacher_bound(rest))) if many else found
    return p_values


def _hits(differences: Array, signs: Iterable[Array]) -> Array:
    """How many flips of signs make each column's sum at least as large, either way. differences: (n, m); (m,)."""
    size = np.abs(differences).sum(axis=0)
    reached = np.abs(differences.sum(axis=0)) - ROUNDING * size
    hits = np.zeros(differences.shape[1], dtype=np.int64)
    width = max(1, BLOCK // 1024)
    for block in signs:
        for start in range(0, len(hits), width):
            some = slice(start, start + width)
            hits[some] += (np.abs(block @ differences[:, some]) >= reached[some]).sum(axis=0)
    return hits


def _all_signs(n: int) -> Iterator[Array]:
    """The 2^n rows of n signs."""
    for start in range(0, 2**n, 1024):
        numbers = np.arange(start, min(start + 1024, 2**n))
        yield (numbers[:, None] >> np.arange(n) & 1) * 2.0 - 1.0


def _some_signs(n: int) -> Iterator[Array]:
    """10,000 random rows of n signs."""
    random = np.random.default_rng(SEED)
    rows = min(1000, max(1, BLOCK // n))
    for start in range(0, FLIPS, rows):
        yield random.integers(2, size=(min(rows, FLIPS - start), n), dtype=np.int8) * 2.0 - 1.0


def rademacher_bound(differences: Array) -> Array:
    """What the exact p-value of each column (n, m) does not exceed."""
    from scipy.special import ndtr

    norm = np.sqrt((differences**2).sum(axis=0))
    z = np.abs(differences.sum(axis=0)) / np.where(norm > 0, norm, 1.0)
    return np.minimum(1.0, 2 * RADEMACHER * ndtr(-z * (1 - ROUNDING)))


def holm(p_values: npt.ArrayLike) -> Array:
    """Adjusted for all m of them (Scandinavian Journal of Statistics 6 (1979) 65). (m,) to (m,)."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def _binary(values: Array) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _checked(preferences: npt.ArrayLike) -> Array:
    values = np.asarray(preferences, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError("A win rate needs one preference for each prompt, and one prompt at least.")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("Preferences must be numbers from 0 to 1.")
    return values
