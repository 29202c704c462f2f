"""Numbers in sentences."""

from __future__ import annotations


def were(count: int, noun: str) -> str:
    """As in "1 pair was", "2,000 pairs were"; `noun` in the singular."""
    return f"1 {noun} was" if count == 1 else f"{count:,} {noun}s were"
