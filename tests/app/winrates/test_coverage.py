"""Do 95 % intervals hold the truth in 95 % of draws? The real functions on 10,000 simulated experiments each."""

from __future__ import annotations

import numpy as np
import pytest

from app.winrates.stats import Array, bootstrap_interval, compare_all, paired, prompts_needed, wilson

DRAWS = 10_000
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)


def drawn(kind: str, rate: float, n: int) -> Array:
    """Preferences (n, DRAWS) of that mean: with ties, half as many as they can be; or a Beta(2 rate, 2 - 2 rate)."""
    random = np.random.default_rng([n, round(100 * rate)])
    if kind == "continuous":
        return random.beta(2 * rate, 2 - 2 * rate, size=(n, DRAWS))
    ties = min(rate, 1 - rate) if kind == "ties" else 0.0
    return random.choice([0, 0.5, 1], p=[1 - rate - ties / 2, ties, rate - ties / 2], size=(n, DRAWS))


def assert_held(low: Array, high: Array, truth: float, n: int, label: str) -> None:
    share = float(((low <= truth) & (truth <= high)).mean())
    print(f"{label}, n = {n}: {100 * share:.2f} %")
    assert (0.93 <= share <= 0.97) if n == 100 else (0.94 <= share <= 0.96)


@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("rate", RATES)
def test_wilsons_interval_holds_the_rate(rate: float, n: int) -> None:
    low, high = np.array([wilson(float(each), n) for each in drawn("plain", rate, n).mean(axis=0)]).T
    assert_held(low, high, rate, n, f"Wilson, rate {rate}")


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("kind", ["ties", "continuous"])
@pytest.mark.long
def test_the_bootstrap_interval_holds_the_rate(kind: str, n: int, rate: float) -> None:
    assert_held(*bootstrap_interval(drawn(kind, rate, n)), rate, n, f"bootstrap, {kind}, rate {rate}")


@pytest.mark.parametrize("kind", ["ties", "continuous"])
def test_the_bootstrap_interval_holds_a_rate_near_the_end_where_it_is_hardest(kind: str) -> None:
    assert_held(*bootstrap_interval(drawn(kind, 0.9, 100)), 0.9, 100, f"bootstrap, {kind}, rate 0.9")


@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("kind", ["plain", "ties", "continuous"])
def test_the_t_interval_holds_the_difference(kind: str, n: int) -> None:
    for better, worse in ((0.5, 0.3), (0.7, 0.7), (0.9, 0.1)):
        _, mean, _, half = paired(drawn(kind, better, n) - drawn(kind, worse, n)[:, ::-1])
        assert_held(mean - half, mean + half, better - worse, n, f"t, {kind}, {better} - {worse}")


@pytest.mark.parametrize("kind", ["plain", "ties", "continuous"])
@pytest.mark.parametrize(("better", "worse"), [(0.6, 0.5), (0.55, 0.5), (0.9, 0.8)])
def test_the_prompts_said_to_be_needed_give_eighty_percent_power(better: float, worse: float, kind: str) -> None:
    one, other = drawn(kind, better, 2000), drawn(kind, worse, 2000)[:, ::-1]
    needed = prompts_needed(better - worse, float((one - other).std()))
    assert needed is not None and needed <= 2000
    differences = one[:needed] - other[:needed]
    _, mean, _, half = paired(differences)
    by_interval = float((np.abs(mean) > half).mean())
    # Each even row is compared with the odd one after it.
    rows = np.stack([one[:needed, :2000].T, other[:needed, :2000].T], axis=1).reshape(4000, needed)
    found = compare_all(rows, pairs=[(k, k + 1) for k in range(0, 4000, 2)])
    by_flips = float(np.mean([each.p_value < 0.05 for each in found.values()]))
    print(
        f"{kind}, {better} - {worse}, {needed} prompts: {100 * by_interval:.1f} % by t, {100 * by_flips:.1f} % by flips"
    )
    assert by_interval == pytest.approx(0.8, abs=0.03)
    # Sums of plain wins move in steps of two, so that few prompts make this p-value somewhat too large.
    assert by_flips == pytest.approx(0.8, abs=0.03 if kind == "continuous" or needed > 500 else 0.05)
