"""A judge's words about two answers as a verdict, and two verdicts in both orders as one. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Winner = Literal["first", "second", "tie"]
"""Of the two answers as they stood in the request."""

TOKENS: dict[str, Winner] = {
    "a": "first", "1": "first", "b": "second", "2": "second", "tie": "tie", "draw": "tie", "c": "tie",
}  # fmt: skip
"""What a verdict's line may hold. C is a tie in the instructions that many know (Zheng et al. 2023)."""
BEFORE = re.compile(
    r"^(?:(?:my|the) )?(?:final )?(?:verdict|judge?ment|winner|choice|decision|answer)(?: is)?\s*[:=]?\s*(?:answer )?",
    re.IGNORECASE,
)
AFTER = re.compile(r"\s+(?:is (?:the )?(?:better|best|winner)(?: one| answer)?|wins)$", re.IGNORECASE)
AROUND = " \t*_`\"'“”‘’()[]{}<>.,;:!#-–—"
MOST_REASON = 300  # characters of what a judge said


def read_winner(text: str) -> Winner | None:
    """Who wins, by the last line that holds anything; None where that line is no verdict and nothing else."""
    lines = [line for line in text.splitlines() if line.strip(AROUND)]
    if not lines:
        return None
    last = AFTER.sub("", _bare(lines[-1]))
    return TOKENS.get(_bare(last)) or TOKENS.get(_bare(BEFORE.sub("", last)))


def _bare(line: str) -> str:
    """Without LaTeX's box and what stands around the words."""
    plain = re.sub(r"\\(?:boxed|text|textbf)\b", "", line.replace("$", "")).strip(AROUND).lower()
    return re.sub(r"[\s_*]+", " ", plain)


def excerpt(text: str) -> str:
    """The beginning of what a judge said, in one line, without its verdict's."""
    lines = [line for line in text.splitlines() if line.strip()]
    words = " ".join(" ".join(lines[:-1] if len(lines) > 1 else lines).replace("\0", " ").split())
    return words if len(words) <= MOST_REASON else f"{words[:MOST_REASON]}…"


@dataclass(frozen=True, slots=True)
class Verdict:
    """On answers a and b: 1 where a is better, 0 where b is, 0.5 for a tie or where it is undecided."""

    preference: float
    agreed: bool
    reason: str


def combine(a_first: Winner, b_first: Winner, a: str, b: str, words: str = "") -> Verdict:
    """One verdict of two, the second with the answers changed over. a and b: the models' names, for people."""
    mirrored: dict[Winner, Winner] = {"first": "second", "second": "first", "tie": "tie"}
    if a_first == mirrored[b_first]:
        return Verdict({"first": 1.0, "second": 0.0, "tie": 0.5}[a_first], True, words)
    said = {"first": f"“{a}” better", "second": f"“{b}” better", "tie": "a tie"}
    reason = (
        f"Undecided: with the answer of “{a}” first it says {said[a_first]}, with that of “{b}” first "
        f"{said[mirrored[b_first]]}."
    )
    return Verdict(0.5, False, f"{reason} {words}".rstrip())
