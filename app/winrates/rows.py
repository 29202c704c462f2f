"""One row of a file of answers, scores or verdicts, checked. Raises RowError, which a file's reader names by line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from training.data.examples import Message
from training.data.lines import RowError
from training.data.rows import MOST_ANSWER, as_prompt_messages, checked_name

JUDGES = ("reward:", "llm:", "human:")


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """`{"prompt_id", "model", "response", "prompt"?, "category"?, "reference"?, "ended"?, "tokens"?, "checkpoint"?}`."""

    prompt_id: str
    model: str
    text: str
    messages: list[Message] | None = None
    category: str | None = None
    reference: str | None = None
    ended: bool | None = None
    tokens: int | None = None
    checkpoint: int | None = None


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """`{"prompt_id", "model", "judge", "score"}`."""

    prompt_id: str
    model: str
    judge: str
    score: float


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """`{"prompt_id", "model_a", "model_b", "judge", "preference", "score_a"?, "score_b"?, "reason"?}`."""

    prompt_id: str
    model_a: str
    model_b: str
    judge: str
    preference: float
    score_a: float | None = None
    score_b: float | None = None
    reason: str = ""


def as_response(row: dict[str, Any]) -> ResponseRow:
    """Raises RowError."""
    text = _text(row, "response")
    if len(text) > MOST_ANSWER:
        raise RowError(
            f"the answer has {len(text):,} characters; {MOST_ANSWER:,} are the most.", "Cut it, or leave it out."
        )
    prompt = row.get("prompt")
    return ResponseRow(
        prompt_id=_prompt_id(row),
        model=_name(row, "model"),
        text=text,
        messages=None if prompt is None else as_prompt_messages(prompt),
        category=_name(row, "category") if row.get("category") else None,
        reference=None if row.get("reference") is None else _text(row, "reference"),
        ended=_optional(row, "ended", bool, "true or false"),
        tokens=_count(row, "tokens"),
        checkpoint=_count(row, "checkpoint"),
    )


def as_score(row: dict[str, Any]) -> ScoreRow:
    """Raises RowError."""
    score = _number(row, "score")
    if score is None:
        raise RowError("“score” is missing.", "A score is a number.")
    return ScoreRow(_prompt_id(row), _name(row, "model"), _judge(row), score)


def as_verdict(row: dict[str, Any]) -> VerdictRow:
    """Raises RowError."""
    preference = _number(row, "preference")
    if preference is None or not 0 <= preference <= 1:
        said = "is missing" if preference is None else f"is {preference:g}"
        raise RowError(
            f"“preference” {said}; it is a number from 0 to 1.", "1: the first model's answer is better; 0.5: a tie."
        )
    a, b = _name(row, "model_a"), _name(row, "model_b")
    if a == b:
        raise RowError(f"“{a[:60]}” is compared with itself.", "A verdict is on the answers of two models.")
    reason = "" if row.get("reason") is None else _text(row, "reason")
    return VerdictRow(
        _prompt_id(row),
        a,
        b,
        _judge(row),
        preference,
        _number(row, "score_a"),
        _number(row, "score_b"),
        reason[:10_000],
    )


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if type(value) is not str:
        raise RowError(f"“{name}” is {'missing' if value is None else 'no text'}.", "Write a text in quotes.")
    if "\0" in value:
        raise RowError(f"“{name}” holds a NUL character (\\u0000), which is no text.", "Leave the character out.")
    return value


def _name(row: dict[str, Any], name: str) -> str:
    return _checked(_text(row, name), name)


@lru_cache(maxsize=10_000)
def _checked(text: str, name: str) -> str:
    """A name, checked once, and the same object in every row: a file has millions of rows, and few names."""
    return checked_name(text, name)


def _prompt_id(row: dict[str, Any]) -> str:
    value = row.get("prompt_id")
    return str(value) if type(value) is int else _name(row, "prompt_id")


def _judge(row: dict[str, Any]) -> str:
    return judge_name(_text(row, "judge"))


@lru_cache(maxsize=10_000)
def judge_name(text: str, field: str = "judge") -> str:
    """A judge's name, checked. `field`: where it stands. Raises RowError."""
    judge = _checked(text, field)
    if judge != "checker" and not any(judge.startswith(kind) and len(judge) > len(kind) for kind in JUDGES):
        raise RowError(
            f"“{field}” is “{judge[:60]}”.", "A judge is named checker, reward:<name>, llm:<name> or human:<name>."
        )
    return judge


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise RowError(f"“{name}” is no finite number.", "Write a number without quotes.")
    return float(value)


def _count(row: dict[str, Any], name: str) -> int | None:
    value = _optional(row, name, int, "a whole number")
    if value is not None and not 0 <= value < 2**31:
        raise RowError(f"“{name}” is {value}.", "It is a whole number from 0.")
    return value


def _optional(row: dict[str, Any], name: str, kind: type, what: str) -> Any:
    value = row.get(name)
    if value is not None and type(value) is not kind:
        raise RowError(f"“{name}” is not {what}.", "Correct it, or leave it out.")
    return value
