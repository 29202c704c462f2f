"""The leaderboard by hand, against evalica, and its intervals against a bootstrap over prompts."""

from __future__ import annotations

import math
import time
from itertools import combinations
from typing import Any

import evalica
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, stdtrit

from app.winrates.bradley_terry import Leaderboard, bradley_terry, log_strengths

Games = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def played(strengths: Any, prompts: int, seed: int, repeats: int = 1) -> Games:
    """Every pair once on every prompt; each result counted `repeats` times, as if judges agreed wholly."""
    random = np.random.default_rng(seed)
    theta = np.asarray(strengths, dtype=float)
    a, b = np.array(list(combinations(range(len(theta)), 2))).T
    prompt = np.repeat(np.arange(prompts), len(a))
    a, b = np.tile(a, prompts), np.tile(b, prompts)
    won = (random.random(len(a)) < expit(theta[a] - theta[b])).astype(float)
    won[random.random(len(a)) < 0.1] = 0.5
    return np.repeat(a, repeats), np.repeat(b, repeats), np.repeat(won, repeats), np.repeat(prompt, repeats)


def scores(found: Leaderboard) -> list[float]:
    assert all(standing.score is not None for standing in found.standings)
    return [float(standing.score or 0) for standing in found.standings]


def test_two_models_by_hand() -> None:
    # Three wins of four: 3 to 1, so that the log-strengths are half of log 3 either way. The log of the odds of a mean
    # has the standard error of the mean over p (1 - p); a half of it each.
    found = bradley_terry([0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 2, 3], models=2)
    assert found.connected and (found.winless, found.lossless, found.apart) == ((), (), ())
    first, second = found.standings
    assert (first.games, first.score, second.score) == (4, pytest.approx(0.75, abs=1e-13), pytest.approx(0.25))
    assert first.elo == pytest.approx(1000 + 400 * math.log10(math.sqrt(3)), abs=1e-9)
    error = math.sqrt(0.25 / 4) / (0.75 * 0.25) / 2
    half = 400 / math.log(10) * 3.182446305284263 * error
    assert (first.ci_low, first.ci_high) == pytest.approx((first.elo - half, first.elo + half), rel=1e-9)
    assert second.elo == pytest.approx(2000 - first.elo)


def test_a_tie_and_any_preference_are_shares_of_a_win() -> None:
    halves = bradley_terry([0, 0], [1, 1], [0.5, 1.0], [0, 1], models=2)
    wins = bradley_terry([0, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], models=2)
    shares = bradley_terry([0], [1], [0.75], [0], models=2)
    assert scores(halves) == pytest.approx(scores(wins), abs=1e-12)
    assert scores(shares) == pytest.approx([0.75, 0.25], abs=1e-12)


@pytest.mark.parametrize(("models", "prompts", "spread"), [(3, 40, 0.5), (12, 30, 1.0), (59, 8, 1.5)])
def test_scores_are_evalicas_to_nine_digits(models: int, prompts: int, spread: float) -> None:
    a, b, won, prompt = played(np.random.default_rng(1).normal(0, spread, models), prompts, seed=2)
    winners = [{1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}[each] for each in won]
    result = evalica.bradley_terry(a, b, winners, tolerance=1e-14, limit=100_000).scores.sort_index().to_numpy()
    found = bradley_terry(a, b, won, prompt, models)
    assert scores(found) == pytest.approx(result / result.sum(), rel=1e-9)
    assert math.fsum(scores(found)) == pytest.approx(1, abs=1e-12)
    mean = np.log(result).mean()
    elo = [standing.elo for standing in found.standings]
    assert elo == pytest.approx(list(1000 + 400 * (np.log(result) - mean) / math.log(10)), abs=1e-6)


def test_two_groups_that_few_games_link_still_have_exact_scores() -> None:
    wins = np.zeros((60, 60))
    wins[:30, :30] = wins[30:, 30:] = 100.0
    np.fill_diagonal(wins, 0)
    wins[0, 30], wins[30, 0] = 3, 1
    theta = log_strengths(wins)
    assert theta[:30] - theta[30] == pytest.approx(math.log(3), abs=1e-9)
    assert np.ptp(theta[:30]) < 1e-9


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_neither_the_order_within_a_game_nor_the_models_numbers_matter(seed: int, models: int) -> None:
    a, b, won, prompt = played(np.zeros(models), 10, seed)
    found = bradley_terry(a, b, won, prompt, models)
    turned = np.random.default_rng(seed).random(len(a)) < 0.5
    swapped = bradley_terry(
        np.where(turned, b, a), np.where(turned, a, b), np.where(turned, 1 - won, won), prompt, models
    )
    renamed = bradley_terry(models - 1 - a, models - 1 - b, won, prompt, models)
    for k, standing in enumerate(found.standings):
        for other in (swapped.standings[k], renamed.standings[models - 1 - k]):
            assert (other.games, other.score is None) == (standing.games, standing.score is None)
            if standing.score is not None:
                one, two = (standing.elo, standing.ci_low, standing.ci_high), (other.elo, other.ci_low, other.ci_high)
                assert two == pytest.approx(one, abs=1e-6)


def test_games_that_say_the_same_on_one_prompt_do_not_narrow_the_interval() -> None:
    once, thrice = (bradley_terry(*played([0.5, 0, -0.5], 50, seed=0, repeats=n), models=3) for n in (1, 3))
    for one, three in zip(once.standings, thrice.standings, strict=True):
        assert three.games == 3 * one.games
        assert (three.elo, three.ci_low, three.ci_high) == pytest.approx((one.elo, one.ci_low, one.ci_high), abs=1e-6)


def test_one_prompt_gives_scores_without_intervals() -> None:
    found = bradley_terry([0, 0], [1, 1], [1, 0], [7, 7], models=2).standings[0]
    assert (found.score, found.ci_low, found.ci_high) == (pytest.approx(0.5), None, None)


def test_models_that_only_won_or_only_lost_have_no_score_and_are_named() -> None:
    # 0 beat 1; 1 and 2 each beat the other; 3 lost to 2.
    found = bradley_terry([0, 1, 2, 2, 2], [1, 2, 1, 1, 3], [1, 1, 1, 1, 1], [0, 1, 2, 3, 4], models=4)
    assert (found.connected, found.lossless, found.winless, found.apart) == (False, (0,), (3,), ())
    assert found.standings[0].score is None and found.standings[3].elo is None
    alone = bradley_terry([0, 1, 1], [1, 0, 0], [1, 1, 1], [1, 2, 3], models=2)
    for ours, theirs in zip(found.standings[1:3], alone.standings, strict=True):
        assert (ours.score, ours.elo, ours.ci_low) == pytest.approx((theirs.score, theirs.elo, theirs.ci_low))
    assert [standing.games for standing in found.standings] == [1, 4, 4, 1]


def test_of_equally_large_groups_that_with_more_games_is_scored() -> None:
    found = bradley_terry([0, 1, 2, 3, 2], [1, 0, 3, 2, 3], [1, 1, 1, 1, 1], range(5), models=5)
    assert [standing.score is not None for standing in found.standings] == [False, False, True, True, False]
    assert (found.connected, found.winless, found.lossless, found.apart) == (False, (), (), (0, 1, 4))


def test_a_tie_links_two_models() -> None:
    found = bradley_terry([0, 0, 1], [1, 2, 2], [0.5, 0.5, 1.0], range(3), models=3)
    assert found.connected and all(standing.score is not None for standing in found.standings)


def test_where_nobody_is_linked_nobody_is_scored() -> None:
    found = bradley_terry([0, 0], [1, 1], [1, 1], [0, 1], models=2)
    assert (found.connected, found.lossless, found.winless) == (False, (0,), (1,))
    assert [standing.score for standing in found.standings] == [None, None]
    assert bradley_terry([], [], [], [], models=2).apart == (0, 1)
    assert bradley_terry([], [], [], [], models=0).standings == ()


@pytest.mark.parametrize(
    "game", [([0], [0], [1], [0]), ([0], [2], [1], [0]), ([0], [1], [2], [0]), ([0], [1], [1], [])]
)
def test_what_is_no_game_is_refused(game: tuple[list[int], ...]) -> None:
    with pytest.raises(ValueError, match=r"game|from 0 to 1"):
        bradley_terry(*game, models=2)


def test_intervals_are_those_of_a_bootstrap_over_prompts() -> None:
    models, prompts = 5, 150
    a, b, won, prompt = played([1, 0.4, 0, -0.3, -1], prompts, seed=3)
    # Prompts lean: on half of them model 0 always wins, so that its games there depend on each other.
    won[(a == 0) & (prompt % 2 == 0)] = 1.0
    found = bradley_terry(a, b, won, prompt, models)
    wins = np.zeros((prompts, models, models))
    np.add.at(wins, (prompt, a, b), won)
    np.add.at(wins, (prompt, b, a), 1 - won)
    random = np.random.default_rng(0)
    drawn = [log_strengths(wins[random.integers(prompts, size=prompts)].sum(axis=0)) for _ in range(1000)]
    errors = 400 / math.log(10) * np.std(drawn, axis=0)
    for standing, error in zip(found.standings, errors, strict=True):
        assert standing.ci_low is not None and standing.ci_high is not None
        ours = (standing.ci_high - standing.ci_low) / (2 * stdtrit(prompts - 1, 0.975))
        assert ours == pytest.approx(error, rel=0.1)


def test_intervals_hold_the_true_strengths_even_where_all_judges_repeat_each_other() -> None:
    theta = np.array([0.8, 0.2, -0.2, -0.8])
    held = []
    for seed in range(600):
        found = bradley_terry(*played(theta, 60, seed, repeats=3), models=4)
        # A tenth of the results are ties whatever the strengths, so the truth is what endless games would give.
        held.append([s.ci_low <= truth <= s.ci_high for s, truth in zip(found.standings, endless(theta), strict=True)])  # type: ignore[operator]
    share = np.mean(held)
    print(f"Bradley-Terry, 60 prompts: {100 * share:.1f} %")
    assert 0.93 <= share <= 0.97


def endless(theta: np.ndarray) -> np.ndarray:
    expected = 0.9 * expit(theta[:, None] - theta[None, :]) + 0.05
    np.fill_diagonal(expected, 0)
    return np.asarray(1000 + 400 / math.log(10) * log_strengths(expected))


def test_fifty_nine_models_and_very_many_games_take_a_second_or_two() -> None:
    a, b, won, prompt = played(np.linspace(-1, 1, 59), 500, seed=0)
    assert len(a) == 500 * 1711
    began = time.perf_counter()
    bradley_terry(a, b, won, prompt, models=59)
    assert time.perf_counter() - began < 10
