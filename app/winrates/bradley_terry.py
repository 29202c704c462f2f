"""The leaderboard: Bradley-Terry strengths from all verdicts. Pure.

Every verdict is a game: a preference p is p of a win for the first model and 1 - p for the second, so that a tie is
half a win to each. Model i beats j with probability score_i / (score_i + score_j).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ELO = 400 / math.log(10)  # points a unit of log-strength
ITERATIONS = 1000  # of evalica's
STEPS = 100  # of Newton's
CONVERGED = 1e-13
LINK = 1e-9  # less than this of a win, summed over all games, is none: no strength would be finite in practice


@dataclass(frozen=True)
class Standing:
    """One model. Scores sum to 1; elo = 1000 + 400 log10(score / geometric mean of the scores), its interval (95 %)
    on that scale. None where the games do not bound it."""

    games: int
    score: float | None = None
    elo: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True)
class Leaderboard:
    """A standing for each model. Where not `connected`, only the largest group whose models have all beaten each
    other, directly or through others, is scored, on the games inside it; the rest have no finite score: `winless`
    (no win, no tie), `lossless` (no loss, no tie), `apart` (others)."""

    standings: tuple[Standing, ...]
    connected: bool
    winless: tuple[int, ...] = ()
    lossless: tuple[int, ...] = ()
    apart: tuple[int, ...] = ()


def bradley_terry(
    first: npt.ArrayLike, second: npt.ArrayLike, preferences: npt.ArrayLike, prompts: npt.ArrayLike, models: int
) -> Leaderboard:
    """The leaderboard of `models` models. All (games,): the two models as indices, the preference for the first in
    [0, 1], and the prompt as any number.

    Intervals are Wald's on the log-strengths, centred, with a covariance that lets games on one prompt depend on each
    other (cluster-robust sandwich, P / (P - 1), t with P - 1 degrees of freedom, P prompts); None for one prompt.
    """
    a, b, p, prompt = _checked(first, second, preferences, prompts, models)
    wins = _wins(a, b, p, models)
    group, connected = _scored_group(wins)
    played = np.bincount(np.concatenate([a, b]), minlength=models)
    standings = [Standing(int(games)) for games in played]
    if len(group) > 1:
        strengths = log_strengths(wins[np.ix_(group, group)])
        place = np.full(models, -1)
        place[group] = np.arange(len(group))
        inside = (place[a] >= 0) & (place[b] >= 0)
        half = _half_width(strengths, place[a[inside]], place[b[inside]], p[inside], prompt[inside])
        scores = np.exp(strengths - strengths.max())
        scores /= scores.sum()
        for k, model in enumerate(group):
            elo = 1000 + ELO * float(strengths[k])
            low, high = (None, None) if half is None else (elo - float(half[k]), elo + float(half[k]))
            standings[model] = Standing(int(played[model]), float(scores[k]), elo, low, high)
    return Leaderboard(tuple(standings), connected, *_left_out(wins > LINK, standings))


def _checked(
    first: npt.ArrayLike, second: npt.ArrayLike, preferences: npt.ArrayLike, prompts: npt.ArrayLike, models: int
) -> tuple[Array, Array, Array, Array]:
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    p, prompt = np.asarray(preferences, dtype=np.float64), np.asarray(prompts)
    if not a.shape == b.shape == p.shape == prompt.shape or a.ndim != 1:
        raise ValueError("A game needs two models, a preference and a prompt.")
    if ((a < 0) | (b < 0) | (a >= models) | (b >= models) | (a == b)).any():
        raise ValueError(f"A game is between two different models of {models}, counted from 0.")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("Preferences must be numbers from 0 to 1.")
    return a, b, p, prompt


def _wins(a: Array, b: Array, p: Array, models: int) -> Array:
    """Wins of each model (row) over each (column): (models, models)."""
    cells = np.concatenate([a * models + b, b * models + a])
    return np.bincount(cells, np.concatenate([p, 1 - p]), models * models).reshape(models, models)


def _scored_group(wins: Array) -> tuple[Array, bool]:
    """The largest group of models that are all linked both ways by wins (of equally large ones, that with the most
    games), as indices, and whether it is all of them."""
    from scipy.sparse.csgraph import connected_components

    if not len(wins):
        return np.array([], dtype=np.int64), True
    count, label = connected_components(wins > LINK, directed=True, connection="strong")
    groups = [np.flatnonzero(label == k) for k in range(count)]
    best = max(groups, key=lambda group: (len(group), wins[np.ix_(group, group)].sum(), -group[0]))
    return best, count == 1


def log_strengths(wins: Array) -> Array:
    """The maximum of the likelihood, as logarithms of strengths that sum to 0: (m,), from wins (m, m), which must be
    linked both ways.

    evalica's iteration (Newman 2023) comes near; Newton's steps end at the last digit. Alone, the iteration can stop
    far off where only a few of many games link two groups of models.
    """
    import evalica
    from scipy.special import expit

    winner, loser = np.nonzero(wins)
    won = [evalica.Winner.X] * len(winner)
    result = evalica.bradley_terry(winner, loser, won, weights=wins[winner, loser], tolerance=1e-14, limit=ITERATIONS)
    theta = np.log(result.scores.sort_index().to_numpy())
    theta -= theta.mean()
    for _ in range(STEPS):
        expected = (wins + wins.T) * expit(theta[:, None] - theta[None, :])
        step = _inverse(_information(wins + wins.T, theta)) @ (wins - expected).sum(axis=1)
        theta = theta + step * min(1.0, 2.0 / float(np.abs(step).max() or 1.0))
        theta -= theta.mean()
        if np.abs(step).max() <= CONVERGED * (1 + np.abs(theta).max()):
            break
    return theta


def _information(games: Array, theta: Array) -> Array:
    """Minus the likelihood's second derivative: (m, m), from games (m, m) and log-strengths (m,)."""
    from scipy.special import expit

    gap = theta[:, None] - theta[None, :]
    linked = games * expit(gap) * expit(-gap)
    return np.asarray(np.diag(linked.sum(axis=1)) - linked)


def _inverse(information: Array) -> Array:
    """The inverse among vectors that sum to 0, which is where centred log-strengths live."""
    m = len(information)
    scale = information.trace() / m  # so that what is added for the constant vector is of its size
    return np.asarray(np.linalg.inv(information + scale / m) - 1 / (scale * m))


def _half_width(theta: Array, a: Array, b: Array, p: Array, prompt: Array) -> Array | None:
    """Half the 95 % interval in Elo points: (m,). Games (G,) by the places of their models in theta (m,)."""
    from scipy.special import expit, stdtrit

    m = len(theta)
    clusters, cluster = np.unique(prompt, return_inverse=True)
    if len(clusters) < 2:
        return None
    surprise = p - expit(theta[a] - theta[b])
    cells = np.concatenate([cluster * m + a, cluster * m + b])
    scores = np.bincount(cells, np.concatenate([surprise, -surprise]), len(clusters) * m).reshape(-1, m)
    games = np.bincount(np.concatenate([a * m + b, b * m + a]), minlength=m * m).reshape(m, m)
    reach = scores @ _inverse(_information(games, theta))
    freedom = len(clusters) - 1
    variance = (reach**2).sum(axis=0) * len(clusters) / freedom
    return np.asarray(ELO * stdtrit(freedom, 0.975) * np.sqrt(variance))


def _left_out(beaten: Array, standings: list[Standing]) -> tuple[tuple[int, ...], ...]:
    """Models without a score: those without wins, those without losses, others. beaten: (models, models),
    whether the row's has beaten the column's."""
    winless: list[int] = []
    lossless: list[int] = []
    apart: list[int] = []
    for model, standing in enumerate(standings):
        if standing.score is not None:
            continue
        if standing.games and not beaten[model].any():
            winless.append(model)
        elif standing.games and not beaten[:, model].any():
            lossless.append(model)
        else:
            apart.append(model)
    return tuple(winless), tuple(lossless), tuple(apart)
