"""How far judges agree. Pure.

A unit is one prompt with one pair of models; preferences are oriented alike within a unit. Judges are compared by
whether they call it a win, a tie or a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.winrates.stats import TIE

Array = npt.NDArray[Any]

LOSS, DRAW, WIN = 0, 1, 2
CATEGORIES = 3


@dataclass(frozen=True)
class JudgePair:
    """Two judges on the n units that both judged. `agreement_without_ties`: among units where neither says tie, None
    if there are none; `cohen_kappa`: three categories, unweighted, None where both always say the same one thing."""

    judge_a: int
    judge_b: int
    n: int
    agreement: float
    agreement_without_ties: float | None
    cohen_kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """All pairs of judges that share units, and Krippendorff's alpha over all judges (nominal, three categories):
    None without a unit that two judged, or where all said the same one thing."""

    pairs: tuple[JudgePair, ...]
    krippendorff_alpha: float | None


def agreement(judges: npt.ArrayLike, units: npt.ArrayLike, preferences: npt.ArrayLike) -> Agreement:
    """Judges against each other. All (verdicts,): the judge, the unit (any integers) and the preference in [0, 1].
    Several verdicts of one judge on one unit are averaged first."""
    from scipy.sparse import csr_array

    if not np.shape(judges) == np.shape(units) == np.shape(preferences) or np.ndim(judges) != 1:
        raise ValueError("A verdict needs a judge, a unit and a preference.")
    names, judge = np.unique(np.asarray(judges), return_inverse=True)
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    if not len(names):
        return Agreement((), None)
    judge, unit, said = _opinions(judge, unit, np.asarray(preferences, dtype=np.float64))
    # One row for each judge and category, one column for each unit, 1 where the judge said so.
    rows, ones = judge * CATEGORIES + said, np.ones(len(said), dtype=np.int64)
    said_of = csr_array((ones, (rows, unit)), shape=(len(names) * CATEGORIES, int(unit.max()) + 1))
    together = (said_of @ said_of.T).toarray().reshape(len(names), CATEGORIES, len(names), CATEGORIES)
    pairs = tuple(
        _pair(int(names[a]), int(names[b]), together[a, :, b, :])
        for a in range(len(names))
        for b in range(a + 1, len(names))
        if together[a, :, b, :].any()
    )
    opinions = np.bincount(unit * CATEGORIES + said, minlength=said_of.shape[1] * CATEGORIES)
    return Agreement(pairs, _alpha(opinions.reshape(-1, CATEGORIES)))


def _opinions(judge: Array, unit: Array, preferences: Array) -> tuple[Array, Array, Array]:
    """What each judge says of each unit, averaged: judge, unit, category, all (opinions,)."""
    if not ((preferences >= 0) & (preferences <= 1)).all():
        raise ValueError("Preferences must be numbers from 0 to 1.")
    count = int(unit.max()) + 1
    keys, key = np.unique(judge * count + unit, return_inverse=True)
    mean = np.bincount(key, preferences) / np.bincount(key)
    said = np.where(mean > 0.5 + TIE, WIN, np.where(mean < 0.5 - TIE, LOSS, DRAW))
    return keys // count, keys % count, said


def _pair(judge_a: int, judge_b: int, table: Array) -> JudgePair:
    """table: (3, 3), units by what a (row) and b (column) said."""
    n = int(table.sum())
    equal = int(np.trace(table))
    decided = table[[LOSS, WIN]][:, [LOSS, WIN]]
    # In whole numbers, so that "by chance alone they would always agree" is exact.
    by_chance = int(table.sum(axis=1) @ table.sum(axis=0))
    return JudgePair(
        judge_a=judge_a,
        judge_b=judge_b,
        n=n,
        agreement=equal / n,
        agreement_without_ties=float(np.trace(decided) / decided.sum()) if decided.any() else None,
        cohen_kappa=(n * equal - by_chance) / (n * n - by_chance) if by_chance < n * n else None,
    )


def _alpha(table: Array) -> float | None:
    """Krippendorff's alpha, nominal: 1 - observed / expected disagreement. table: (units, 3), opinions of each sort."""
    table = table[table.sum(axis=1) > 1]
    size, total = table.sum(axis=1), int(table.sum())
    expected = total**2 - int((table.sum(axis=0) ** 2).sum())
    if not expected:
        return None
    observed = float(((size**2 - (table**2).sum(axis=1)) / (size - 1)).sum())
    return 1 - (total - 1) * observed / expected
