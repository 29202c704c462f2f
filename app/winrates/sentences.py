"""What the figures say, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.winrates.bradley_terry import Leaderboard
from app.winrates.stats import Comparison, Rate, prompts_needed

SIGNIFICANT = 0.05
FEWEST = 6  # prompts: with fewer, no two-sided test of signs comes below 0.05
MOST_NEEDED = 1_000_000


def sentence_of(comparison: Comparison, a: str, b: str) -> str:
    """Which of two models wins more often, by how much, and whether that means anything. a, b: the models' names."""
    if comparison.difference < 0:
        a, b = b, a
    gap = abs(comparison.difference)
    wins = f"{a} beats {b} by {_amount(gap)}" if gap else f"{a} and {b} win equally often"
    return f"{wins}{_interval_of_gap(comparison)}: {_meaning(comparison)}."


def _meaning(comparison: Comparison) -> str:
    prompts = _prompts(comparison.n)
    if comparison.p_value_holm < SIGNIFICANT:
        return f"significant with {prompts} ({_p(comparison.p_value_holm)})"
    if comparison.p_value < SIGNIFICANT:
        return (
            f"not distinguishable with {prompts}, since this is one of several comparisons "
            f"({_p(comparison.p_value)} alone, {comparison.p_value_holm:.2g} among them)"
        )
    needed = comparison.prompts_needed
    if needed is None or needed <= comparison.n:
        return f"not distinguishable with {prompts}"
    return f"not distinguishable with {prompts}; {_needed(needed)} would be needed for 80 % power"


def _interval_of_gap(comparison: Comparison) -> str:
    """As seen from the model that wins more often."""
    low, high = comparison.ci_low, comparison.ci_high
    if low is None or high is None:
        return ""
    if comparison.difference < 0:
        low, high = -high, -low
    return f" (95 % interval {_number(100 * low)} to {_number(100 * high)})"


def sentence_of_rate(rate: Rate, model: str, baseline: str) -> str:
    """How often a model wins against the baseline, and whether that is better or worse than even."""
    if rate.ties == rate.n:
        return f"{model} ties with {baseline} on {'the one prompt' if rate.n == 1 else f'all {rate.n:,} prompts'}."
    interval = ""
    if rate.ci_low is not None and rate.ci_high is not None:
        interval = f" (95 % interval {_number(100 * rate.ci_low)} to {_number(100 * rate.ci_high)})"
    return (
        f"{model} wins {_number(100 * rate.win_rate)} % against {baseline}{interval} "
        f"on {_prompts(rate.n)}: {_against_even(rate)}."
    )


def _against_even(rate: Rate) -> str:
    if rate.n < FEWEST or rate.ci_low is None or rate.ci_high is None:
        return "too few to say more"
    if rate.ci_low > 0.5:
        return "better than even"
    if rate.ci_high < 0.5:
        return "worse than even"
    sd = (rate.standard_error or 0.0) * rate.n**0.5
    needed = prompts_needed(rate.win_rate - 0.5, sd)
    if needed is None or needed <= rate.n:
        return "not distinguishable from even"
    return f"not distinguishable from even; {_needed(needed)} would be needed for 80 % power"


def warnings_of(leaderboard: Leaderboard, names: Sequence[str]) -> list[str]:
    """Why some models have no score. names: of all models, in the leaderboard's order."""
    if all(standing.score is None for standing in leaderboard.standings):
        return ["No two models have both won against each other, directly or through others: there are no scores yet."]
    reasons = (
        (leaderboard.winless, "lost every game, so no score is low enough"),
        (leaderboard.lossless, "won every game, so no score is high enough"),
        (leaderboard.apart, "not linked to the other models by wins both ways, so there is no common scale"),
    )
    return [f"Without a score: {_listed([names[k] for k in models])} ({why})." for models, why in reasons if models]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _prompts(n: int) -> str:
    return f"{n:,} prompt" if n == 1 else f"{n:,} prompts"


def _amount(gap: float) -> str:
    """A gap of rates, above 0, in points."""
    return f"{_number(100 * gap)} points" if gap >= 0.0005 else "less than 0.1 points"


def _number(value: float) -> str:
    """One decimal, and never -0.0."""
    return f"{round(value, 1) + 0.0:.1f}"


def _needed(count: int) -> str:
    return f"about {_rounded(count)}" if count <= MOST_NEEDED else "more than a million"


def _rounded(count: int) -> str:
    """Two digits that mean something: 8,234 as 8,200."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
