"""What is said of a run's curves, and in which words numbers are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "note", "warning"]
LEVELS: tuple[Level, ...] = ("warning", "note", "good")  # the worst first


@dataclass(frozen=True)
class Finding:
    """One thing that the curves say. `metric`: the one it speaks of, by which a page finds the chart; `step`: from when
    it is so, or where it was last seen."""

    metric: str
    level: Level
    title: str  # a word or two
    sentence: str  # what is so, with its numbers
    advice: str = ""  # what to do, with the setting's name
    step: int | None = None


def summary(findings: Sequence[Finding]) -> str:
    """All findings in one line, the worst first: "1 warning: overfitting. 1 note: saturated." """
    parts = []
    for level in LEVELS[:2]:
        titles = [each.title[:1].lower() + each.title[1:] for each in findings if each.level == level]
        if titles:
            parts.append(f"{len(titles)} {level}{'s' if len(titles) > 1 else ''}: {', '.join(titles)}.")
    if parts:
        return " ".join(parts)
    return "Healthy so far: nothing stands out." if findings else "Nothing to say of these curves yet."


def number(value: float) -> str:
    """Three digits that mean something: 0.574, 12.3, 182."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def at(step: int) -> str:
    return f"step {step:,}"
