"""What is said of a run's curves, and in which words numbers are said."""

from __future__ import annotations

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


def number(value: float) -> str:
    """Three digits that mean something: 0.574, 9.82, 12.3, 182."""
    size = abs(value)
    return f"{value:,.{0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3}f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def at(step: int) -> str:
    return f"step {step:,}"
