"""The win-rate table as Markdown, for a paper, a README or a message. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from app.units import percent
from app.winrates.tables import WinRates

Cell = Callable[[Mapping[str, Any]], str]


def as_markdown(table: WinRates, columns: Collection[str]) -> str:
    """A sentence on what it is, then the table with these of the optional columns, then what a reader must know."""
    shown = [(title, cell) for name, title, cell in CELLS if not name or name in columns]
    lines = [
        f"Win rate against {escaped(table.baseline)}, judged by {escaped(table.judge)}, prompts: {escaped(table.prompts)}. "
        "Ties count half; 95 % intervals.",
        "",
        f"| {' | '.join(title for title, _ in shown)} |",
        f"|---|{'---:|' * (len(shown) - 1)}",
        *(f"| {' | '.join(cell(row) for _, cell in shown)} |" for row in table.rows),
    ]
    notes = [f"- {escaped(sentence)}" for sentence in (*table.findings, *table.warnings)]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def escaped(text: str) -> str:
    """A name as it is: nothing in it is markup, and no bar ends a cell."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return "–" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _rate(name: str) -> Cell:
    return lambda row: percent(row[name])


CELLS: tuple[tuple[str, str, Cell], ...] = (
    ("", "Model", lambda row: escaped(row["model"])),
    ("", "Win rate", _rate("win_rate")),
    ("", "95 % interval", _interval),
    ("", "W / L / T", lambda row: f"{row['wins']} / {row['losses']} / {row['ties']}"),
    ("n", "Prompts", lambda row: f"{row['n']}"),
    ("length_controlled_win_rate", "Length-controlled", _rate("length_controlled_win_rate")),
    ("margin_weighted_win_rate", "Margin-weighted", _rate("margin_weighted_win_rate")),
    ("empty_rate", "Empty", _rate("empty_rate")),
    ("ended_rate", "Ended", _rate("ended_rate")),
    ("mean_length", "Mean length", lambda row: "–" if row["mean_length"] is None else f"{row['mean_length']:.0f}"),
)
