"""What a scan found wrong with pairs of answers, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.data.examples import FLAWS, Flaw

Flaws = Mapping[Flaw, Mapping[str, int]]
"""Pairs that training leaves out, by flaw (training.data.examples.Flaw): {"equal": {"count": 12, "line": 3}}."""


def flaws_of(facts: Mapping[str, Any]) -> Flaws:
    """The flaws among a data set's facts; none where an older version took it in."""
    return facts.get("flaws") or {}


def left_out(flaws: Flaws) -> int:
    """How many pairs training leaves out."""
    return sum(each["count"] for each in flaws.values())


def in_words(flaws: Flaws) -> list[str]:
    """One sentence a flaw: how many pairs have it, and which line is the first."""
    return [_sentence(flaw, each["count"], each["line"]) for flaw, each in flaws.items()]


def _sentence(flaw: Flaw, count: int, line: int) -> str:
    if count == 1:
        return f"1 pair will be left out: {FLAWS[flaw]} (line {line:,})."
    return f"{count:,} pairs will be left out: {FLAWS[flaw]} (first: line {line:,})."
