"""Agreement of judges by hand, against scikit-learn's kappa and the krippendorff package."""

from __future__ import annotations

import time

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from app.winrates.agreement import agreement


def table(rows: list[list[float | None]]) -> tuple[list[int], list[int], list[float]]:
    """Judges, units and preferences of a table with a row for each judge."""
    cells = [(j, u, p) for j, row in enumerate(rows) for u, p in enumerate(row) if p is not None]
    return [c[0] for c in cells], [c[1] for c in cells], [c[2] for c in cells]


def test_two_judges_by_hand() -> None:
    # Win, win, tie, loss, loss against win, loss, tie, tie, loss: equal on 3 of 5; without ties on 2 of 3.
    # By chance (2*1 + 1*2 + 2*2) / 25 = 8/25: kappa = (15 - 8) / (25 - 8).
    found = agreement(*table([[1, 0.8, 0.5, 0, 0.2], [0.6, 0, 0.5, 0.5, 0]]))
    (pair,) = found.pairs
    assert (pair.judge_a, pair.judge_b, pair.n) == (0, 1, 5)
    assert (pair.agreement, pair.agreement_without_ties) == (0.6, pytest.approx(2 / 3))
    assert pair.cohen_kappa == pytest.approx(7 / 17)
    # Opinions: 3 wins, 3 ties, 4 losses. Observed 2 of 5 units differ (4 of 10 ordered), expected (100 - 34) / (10 * 9).
    assert found.krippendorff_alpha == pytest.approx(1 - 0.4 / (66 / 90))


def test_several_verdicts_of_one_judge_on_one_unit_are_averaged_first() -> None:
    # 1 and 0 make a tie; 1, 1 and 0.4 a win.
    found = agreement([7, 7, 3, 7, 7, 7, 3], [0, 0, 0, 1, 1, 1, 1], [1, 0, 0.5, 1, 1, 0.4, 1])
    (pair,) = found.pairs
    assert (pair.judge_a, pair.judge_b, pair.n, pair.agreement) == (3, 7, 2, 1.0)


def test_judges_without_a_common_unit_are_no_pair() -> None:
    found = agreement(*table([[1, 0, None], [1, None, None], [None, None, 0]]))
    assert [(pair.judge_a, pair.judge_b, pair.n) for pair in found.pairs] == [(0, 1, 1)]


def test_what_is_undefined_is_none() -> None:
    (pair,) = agreement(*table([[0.5, 0.5], [0.5, 0.5]])).pairs
    assert (pair.agreement, pair.agreement_without_ties, pair.cohen_kappa) == (1, None, None)
    assert agreement(*table([[1, 1], [1, 1]])).krippendorff_alpha is None
    assert agreement(*table([[1, None], [None, 0]])).krippendorff_alpha is None
    assert agreement([], [], []) == agreement(*table([[]]))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 100_000), st.integers(2, 6), st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.8]))
def test_figures_are_those_of_the_reference_packages(seed: int, judges: int, units: int, missing: float) -> None:
    random = np.random.default_rng(seed)
    values = random.choice([0.0, 0.2, 0.5, 1.0], size=(judges, units), p=[0.2, 0.2, 0.2, 0.4])
    values[random.random(values.shape) < missing] = np.nan
    rows, columns = np.nonzero(~np.isnan(values))
    order = random.permutation(len(rows))
    found = agreement(10 * rows[order], columns[order] - 5, values[rows, columns][order])
    said = np.where(np.isnan(values), np.nan, np.sign(values - 0.5))
    for pair in found.pairs:
        a, b = said[pair.judge_a // 10], said[pair.judge_b // 10]
        both = ~np.isnan(a) & ~np.isnan(b)
        assert pair.n == both.sum()
        assert pair.agreement == pytest.approx(np.mean(a[both] == b[both]))
        decided = both & (a != 0) & (b != 0)
        expected = np.mean(a[decided] == b[decided]) if decided.any() else None
        assert pair.agreement_without_ties == (None if expected is None else pytest.approx(expected))
        if len(set(a[both]) | set(b[both])) > 1:
            assert pair.cohen_kappa == pytest.approx(cohen_kappa_score(a[both], b[both]), abs=1e-12)
        else:
            assert pair.cohen_kappa is None
    pairable = (~np.isnan(said)).sum(axis=0) > 1
    if len(np.unique(said[:, pairable][~np.isnan(said[:, pairable])])) > 1:
        alpha = krippendorff.alpha(reliability_data=said, level_of_measurement="nominal")
        assert found.krippendorff_alpha == pytest.approx(alpha, abs=1e-12)
    else:
        assert found.krippendorff_alpha is None


def test_turning_every_unit_around_changes_nothing() -> None:
    random = np.random.default_rng(0)
    judges, units = random.integers(0, 4, 300), random.integers(0, 60, 300)
    preferences = random.choice([0, 0.5, 1], 300)
    assert agreement(judges, units, preferences) == agreement(judges, units, 1 - preferences)


def test_a_verdict_without_a_preference_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a judge, a unit and a preference"):
        agreement([0], [0, 1], [1, 1])
    with pytest.raises(ValueError, match="from 0 to 1"):
        agreement([0], [0], [float("nan")])


def test_very_many_judges_and_units_take_seconds() -> None:
    random = np.random.default_rng(0)
    judges, units = np.nonzero(random.random((126, 20_000)) < 0.1)
    began = time.perf_counter()
    found = agreement(judges, units, random.choice([0, 0.5, 1], size=len(judges)))
    assert time.perf_counter() - began < 10
    assert len(found.pairs) == 126 * 125 // 2
