"""The rate at equal length, by hand, against scikit-learn and against a general optimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from app.winrates.length_control import length_controlled_rate


def test_the_rate_at_equal_length_by_hand() -> None:
    # Two lengths: the model fits both means, 0.375 (odds 0.6) and 0.75 (odds 3); halfway the odds are sqrt(0.6 * 3).
    odds = math.sqrt(1.8)
    found = length_controlled_rate([0.25, 0.5, 0.75, 0.75], [-7, -7, 7, 7])
    assert found == pytest.approx(odds / (1 + odds), abs=1e-13)


@pytest.mark.parametrize("kind", ["plain", "ties", "continuous"])
def test_the_rate_is_scikit_learns_on_labels_split_into_wins_and_losses(kind: str) -> None:
    random = np.random.default_rng(4)
    deltas = np.round(random.normal(150, 400, size=300))
    values = random.random(300) * 0.6 + 0.4 * (deltas > 0)
    if kind != "continuous":
        values = np.round(2 * values) / 2 if kind == "ties" else np.round(values)
    found = length_controlled_rate(values, deltas)
    term = np.tanh(deltas / deltas.std(ddof=1))[:, None]
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-14, max_iter=1000)
    model.fit(np.tile(term, (2, 1)), np.repeat([1, 0], 300), sample_weight=np.concatenate([values, 1 - values]))
    assert found == pytest.approx(model.predict_proba([[0.0]])[0, 1], abs=1e-9)
    assert found is not None and found < values.mean() - 0.02  # its answers are longer, and longer ones win here


def test_the_rate_is_a_general_optimisers_where_lengths_nearly_part_wins_from_losses() -> None:
    deltas = np.arange(-50.0, 51.0)
    values = (deltas > 0).astype(float)
    values[49:53] = [1, 0, 1, 0]
    term = np.tanh(deltas / deltas.std(ddof=1))

    def loss(weights: np.ndarray) -> float:
        line = weights[0] + weights[1] * term
        return float(np.logaddexp(0, line).sum() - values @ line)

    best = minimize(loss, [0, 0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 10_000})
    assert length_controlled_rate(values, deltas) == pytest.approx(1 / (1 + math.exp(-best.x[0])), abs=1e-6)


def test_where_all_lengths_differ_alike_the_rate_is_the_mean() -> None:
    assert length_controlled_rate([1, 0, 0.5, 1], [12, 12, 12, 12]) == 0.625
    assert length_controlled_rate([1, 1], [0, 0]) == 1
    assert length_controlled_rate([0.5], [30]) == 0.5


@pytest.mark.parametrize(
    ("values", "deltas"),
    [
        ([0, 0, 1, 1], [-2, -1, 1, 2]),  # the longer always wins
        ([1, 1, 0, 0], [-2, -1, 1, 2]),
        ([0, 1, 0, 1], [-2, 1, 1, 2]),  # up to equal ones
        ([0, 0.5, 1, 1], [-2, 1, 1, 2]),  # a tie at the border hinders nothing
        ([1, 1, 1], [1, 2, 3]),
        ([0, 0, 0], [1, 2, 3]),
        ([1, 0, 1], [100_000, 100_001, 100_002]),  # all longer by as much, as far as tanh can tell
    ],
)
def test_where_no_single_finite_fit_exists_there_is_no_rate(values: list[float], deltas: list[float]) -> None:
    assert length_controlled_rate(values, deltas) is None


def test_a_tie_within_reach_of_both_makes_the_fit_finite() -> None:
    assert length_controlled_rate([0, 1, 0.5, 0.5], [-2, 2, -2, 2]) == pytest.approx(0.5, abs=1e-13)


@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(3, 40))
def test_seen_from_the_baseline_the_rate_is_mirrored(data: st.DataObject, n: int) -> None:
    one_value = st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])
    values = np.array(data.draw(st.lists(one_value, min_size=n, max_size=n)))
    deltas = np.array(data.draw(st.lists(st.integers(-500, 500), min_size=n, max_size=n)))
    found, mirrored = length_controlled_rate(values, deltas), length_controlled_rate(1 - values, -deltas)
    assert (found is None) == (mirrored is None)
    assume(found is not None and mirrored is not None)
    assert mirrored == pytest.approx(1 - found, abs=1e-9)  # type: ignore[operator]


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="one difference of length a prompt"):
        length_controlled_rate([1, 0], [3])
    with pytest.raises(ValueError, match="from 0 to 1"):
        length_controlled_rate([1, 2], [3, 4])
