"""Numbers in people's words. Pure."""

from __future__ import annotations


def short(number: float) -> str:
    """1,234 as 1.2 K, 34,000,000 as 34 M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= size:
            return f"{number / size:.2g} {unit}" if abs(number) < 100 * size else f"{number / size:,.0f} {unit}"
    return f"{number:,.0f}"


def in_bytes(number: float) -> str:
    """Bytes in people's units (1024)."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.1f} {unit}" if number < 10 * size else f"{number / size:,.0f} {unit}"
    return f"{number:,.0f} B"


def duration(seconds: float) -> str:
    """The two largest units: 3 h 20 min, 5 min, 12 s."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds < 600 and seconds % 60 else "")
    if seconds < 86_400:
        return f"{seconds // 3600} h" + (f" {seconds % 3600 // 60} min" if seconds % 3600 >= 60 else "")
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"


def metric(value: float | None) -> str:
    """A metric with four digits that mean something; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.4f}" if 0.01 <= abs(value) < 100 else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A share with one decimal; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"
