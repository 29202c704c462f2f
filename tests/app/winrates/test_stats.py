"""Rates and paired comparisons against hand-worked values and SciPy. Coverage: test_coverage.py."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as reference

from app.winrates.stats import (
    Rate,
    bootstrap_interval,
    compare,
    compare_all,
    holm,
    margin_weighted_rate,
    prompts_needed,
    rademacher_bound,
    win_rate,
    win_rates,
)

NAN = float("nan")
preferences = hnp.arrays(np.float64, st.integers(2, 40), elements=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0]))


def test_the_statistics_are_imported_without_scipy_or_pandas() -> None:
    rooms = ("stats", "length_control", "bradley_terry", "agreement", "sentences")
    code = "import sys;" + "".join(f"import app.winrates.{room};" for room in rooms)
    code += "print(*sorted({'scipy', 'pandas', 'evalica'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


# One model


def test_a_rate_counts_wins_losses_and_ties_and_has_the_standard_error_of_its_mean() -> None:
    # Deviations from 0.625: 0.375 twice, -0.625, -0.125; squares sum to 0.6875; over 3, over 4, rooted.
    found = win_rate([1, 1, 0, 0.5])
    assert (found.n, found.wins, found.losses, found.ties, found.win_rate) == (4, 2, 1, 1, 0.625)
    assert found.standard_error == pytest.approx(math.sqrt(0.6875 / 3 / 4), rel=1e-14)


def test_one_prompt_has_no_standard_error_and_a_bootstrap_of_it_says_nothing() -> None:
    assert win_rate([0.7]) == Rate(1, 1, 0, 0, 0.7, None, None, None)
    assert win_rate([1]).ci_low == pytest.approx(0.2065493144, abs=1e-9)


def test_a_mean_of_votes_that_is_a_half_but_for_rounding_is_a_tie() -> None:
    votes = np.mean([0.0, 0.6, 0.7, 0.7])
    assert votes != 0.5
    assert win_rate([votes, 1, 0]).ties == 1
    assert win_rate([1 - votes, 1, 0]).ties == 1


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (1, 5), (8, 10), (10, 10), (250, 500), (499, 500)])
def test_the_interval_of_plain_wins_and_losses_is_wilsons_as_scipy_has_it(wins: int, n: int) -> None:
    expected = reference.binomtest(wins, n).proportion_ci(method="wilson")
    found = win_rate([1.0] * wins + [0.0] * (n - wins))
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_with_a_tie_is_the_percentile_bootstrap_as_scipy_has_it() -> None:
    values = np.random.default_rng(3).choice([0.0, 0.5, 1.0], size=300, p=[0.3, 0.3, 0.4])
    by_scipy = reference.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    expected = by_scipy.confidence_interval
    found = win_rate(values)
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert by_scipy.standard_error == pytest.approx(found.standard_error, rel=0.03)


def test_the_bootstrap_of_two_values_reaches_both_which_each_quarter_of_the_resamples_repeats() -> None:
    found = win_rate([0.0, 0.5])
    assert (found.ci_low, found.ci_high) == (0.0, 0.5)


def test_the_same_preferences_give_the_same_interval_alone_and_among_other_models() -> None:
    random = np.random.default_rng(0)
    models = [random.random(200), random.random(200), random.random(150), np.round(random.random(200))]
    for alone, among in zip([win_rate(each) for each in models], win_rates(models), strict=True):
        assert (alone.ci_low, alone.ci_high) == pytest.approx((among.ci_low, among.ci_high), abs=1e-12)


def test_a_bootstrap_over_many_prompts_and_models_is_blocked_and_still_right() -> None:
    values = np.random.default_rng(0).random((3000, 500))  # columns beyond one block, resamples in eight
    low, high = bootstrap_interval(values)
    error = values.std(axis=0, ddof=1) / math.sqrt(3000)
    assert np.allclose((high - low) / (2 * error), 1.96, atol=0.06)
    assert np.allclose(bootstrap_interval(values[:, 499:])[0], low[499:], atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(preferences)
def test_seen_from_the_baseline_a_rate_and_its_interval_are_mirrored(values: np.ndarray) -> None:
    one, other = win_rate(values), win_rate(1 - values)
    assert (other.wins, other.losses, other.ties) == (one.losses, one.wins, one.ties)
    assert other.win_rate == pytest.approx(1 - one.win_rate, abs=1e-12)
    assert other.standard_error == pytest.approx(one.standard_error, abs=1e-12)
    assert one.ci_low is not None and one.ci_high is not None
    assert (other.ci_low, other.ci_high) == pytest.approx((1 - one.ci_high, 1 - one.ci_low), abs=1e-12)


@pytest.mark.parametrize("values", [[], [1.1], [-0.1], [NAN], [[0.5]]])
def test_what_is_no_list_of_preferences_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"prompt|from 0 to 1"):
        win_rate(values)


def test_a_margin_weighs_its_preference() -> None:
    assert margin_weighted_rate([1, 0, 0.5], [-3, 1, 0]) == 0.75
    assert margin_weighted_rate([1, 0], [0, 0]) is None


# Two models


def test_a_paired_comparison_by_hand() -> None:
    # Differences 1, 0.5, 0, 0: mean 0.375, sum of squared deviations 0.6875. Of their 16 flips, those with equal signs
    # before 1 and 0.5 reach a sum of 1.5 either way: a half.
    found = compare([1, 1, 0.5, 1], [0, 0.5, 0.5, 1])
    sd, t = math.sqrt(0.6875 / 3), 3.182446305284263
    assert (found.n, found.difference, found.p_value, found.p_value_holm) == (4, 0.375, 0.5, 0.5)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.375 - t * sd / 2, 0.375 + t * sd / 2), rel=1e-12)
    assert found.prompts_needed == math.ceil((2.8015852 * sd / 0.375) ** 2) == 13


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(2, 13))
def test_the_p_value_of_few_prompts_is_scipys_exact_one(data: st.DataObject, n: int) -> None:
    each = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n)
    a, b = np.array(data.draw(each)), np.array(data.draw(each))
    exact = reference.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=10_000)
    assert compare(a, b).p_value == pytest.approx(exact.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [14, 16])
def test_the_p_value_of_more_prompts_is_near_the_exact_one_and_always_the_same(n: int) -> None:
    random = np.random.default_rng(n)
    for _ in range(10):
        a, b = random.choice([0, 0.5, 1], size=(2, n))
        exact = reference.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=2**n).pvalue
        found = compare(a, b).p_value
        assert abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / 10_000) + 1e-4
        assert round(found * 10_001) == pytest.approx(found * 10_001, abs=1e-6)  # (1 + hits) / (1 + 10,000)
        assert compare(a, b).p_value == found


@pytest.mark.parametrize("n", [12, 60])
def test_sums_that_are_equal_but_for_rounding_count_as_equal(n: int) -> None:
    thirds = np.random.default_rng(n).integers(0, 4, size=(2, n))
    rounded, whole = compare(thirds[0] / 3, thirds[1] / 3), compare(thirds[0] / 4, thirds[1] / 4)
    assert rounded.p_value == whole.p_value
    assert compare([0.1, 0.2, 0.0] * 5, [0.0, 0.0, 0.3] * 5).difference == 0
    assert compare([0.1, 0.2, 0.0] * 5, [0.0, 0.0, 0.3] * 5).prompts_needed is None


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_the_interval_of_a_difference_is_the_paired_t_tests(n: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).random((2, n))
    expected = reference.ttest_rel(a, b).confidence_interval(0.95)
    found = compare(a, b)
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high), abs=1e-10)


@settings(deadline=None, max_examples=40)
@given(preferences, st.integers(0, 10_000))
def test_swapping_the_models_turns_the_difference_and_nothing_else(a: np.ndarray, seed: int) -> None:
    b = np.random.default_rng(seed).choice([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0], size=len(a))
    one, other = compare(a, b), compare(b, a)
    assert other.difference == pytest.approx(-one.difference, abs=1e-15)
    assert one.ci_low is not None and one.ci_high is not None
    assert (other.ci_low, other.ci_high) == pytest.approx((-one.ci_high, -one.ci_low), abs=1e-12)
    assert (other.p_value, other.prompts_needed) == (one.p_value, one.prompts_needed)


def test_equal_models_differ_by_nothing_and_no_number_of_prompts_would_show_it() -> None:
    found = compare([1, 0.5, 0] * 10, [1, 0.5, 0] * 10)
    assert (found.difference, found.ci_low, found.ci_high, found.p_value) == (0, 0, 0, 1)
    assert found.prompts_needed is None


def test_one_common_prompt_has_a_difference_and_no_interval() -> None:
    found = compare([1, NAN], [0, 1])
    assert (found.n, found.difference, found.p_value) == (1, 1, 1)
    assert (found.ci_low, found.ci_high, found.prompts_needed) == (None, None, None)


def test_models_without_a_common_prompt_are_not_compared() -> None:
    assert list(compare_all([[1, NAN], [NAN, 1], [1, 1]])) == [(0, 2), (1, 2)]
    with pytest.raises(ValueError, match="share no prompt"):
        compare([1, NAN], [NAN, 1])


def test_a_missing_prompt_counts_for_no_pair_that_lacks_it() -> None:
    random = np.random.default_rng(2)
    table = random.choice([0, 0.5, 1], size=(4, 60))
    table[1, 3:50] = NAN  # 13 left with the first: exact
    table[2, :7] = NAN
    found = compare_all(table)
    for (a, b), each in found.items():
        both = ~np.isnan(table[a] - table[b])
        alone = compare(table[a, both], table[b, both])
        assert (each.n, each.prompts_needed) == (both.sum(), alone.prompts_needed)
        ours, theirs = (each.difference, each.ci_low, each.ci_high), (alone.difference, alone.ci_low, alone.ci_high)
        assert ours == pytest.approx(theirs, abs=1e-12)
        assert each.p_value == pytest.approx(alone.p_value, abs=0 if both.sum() <= 13 else 0.025)
    assert found[0, 1].n == 13


def test_holm_adjusts_over_all_comparisons_of_a_table() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(holm([0.5, 0.9])) == [1, 1]
    assert list(holm([])) == []
    table = np.random.default_rng(0).choice([0, 1], size=(5, 80), p=[0.4, 0.6])
    found = list(compare_all(table, pairs=[(4, 0), (2, 1), (3, 0)]).values())
    assert [each.p_value_holm for each in found] == pytest.approx(holm([each.p_value for each in found]))


def test_no_bound_of_a_p_value_is_below_the_exact_one() -> None:
    random = np.random.default_rng(0)
    for n in (2, 5, 9, 13):
        columns = random.normal(random.choice([0, 1, 3], size=60), 1.0, size=(n, 60))
        exact = [compare(np.clip(each, 0, 1), np.clip(-each, 0, 1)).p_value for each in (columns / 10).T]
        assert (rademacher_bound(columns / 10) >= exact).all()
    assert rademacher_bound(np.full((2, 1), 0.3))[0] == pytest.approx(0.5)  # attained by two equal differences


def test_a_clear_difference_stays_clear_among_very_many_comparisons() -> None:
    random = np.random.default_rng(0)
    rates = np.linspace(0.1, 0.9, 40)
    found = compare_all((random.random((40, 500)) < rates[:, None]).astype(float))
    assert len(found) == 780
    assert found[0, 39].p_value_holm < 1e-6
    assert found[0, 1].p_value_holm > 0.05
    alone = compare((random.random(500) < 0.9).astype(float), (random.random(500) < 0.1).astype(float))
    assert alone.p_value == 1 / 10_001


def test_fifty_nine_models_on_five_hundred_prompts_are_compared_in_seconds() -> None:
    random = np.random.default_rng(0)
    table = random.choice([0, 0.5, 1], size=(59, 500))
    table[random.random(table.shape) < 0.01] = NAN
    began = time.perf_counter()
    assert len(compare_all(table)) == 1711
    assert time.perf_counter() - began < 10


def test_prompts_needed_by_hand() -> None:
    # (2.8016 * 0.7 / 0.05)^2 = 39.222^2 = 1538.4
    assert prompts_needed(0.05, 0.7) == prompts_needed(-0.05, 0.7) == 1539
    assert prompts_needed(0, 0.7) is None
