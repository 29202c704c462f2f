"""The cursor of an event stream: how far a listener has read in each run, as `1:45,2:9`."""

from __future__ import annotations

from app.errors import Invalid

MOST_RUNS = 100  # that one stream follows
MOST_RUN_ID = 2**31 - 1  # the column has 32 bits, and Postgres refuses to compare more
MOST_DIGITS = 16  # of an event's number


def parse_runs(text: str) -> list[int]:
    """`1,2` as run ids. Raises Invalid."""
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts or len(parts) > MOST_RUNS or not all(_is_run(part) for part in parts):
        raise Invalid(f"runs takes 1 to {MOST_RUNS} run ids with commas between.", fields={"runs": "For example: 1,2."})
    return [int(part) for part in parts]


def parse_cursor(text: str) -> dict[int, int]:
    """`1:45,2:9` as {run: number}. Raises Invalid."""
    cursor: dict[int, int] = {}
    for part in text.split(",") if text.strip() else []:
        run, colon, number = part.strip().partition(":")
        if not colon or not _is_run(run) or not _is_number(number) or len(cursor) >= MOST_RUNS:
            raise Invalid(f"“{text[:60]}” is no cursor.", "It reads <run>:<event>, with commas between.")
        cursor[int(run)] = int(number)
    return cursor


def format_cursor(cursor: dict[int, int]) -> str:
    return ",".join(f"{run}:{number}" for run, number in cursor.items())


def _is_run(text: str) -> bool:
    return _is_number(text) and int(text) <= MOST_RUN_ID


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS
