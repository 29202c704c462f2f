from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from tests.training.judging.given import given, question
from training.errors import DataError, InputError, Stopped
from training.judging.checker import AT_ONCE, Check, Checker, is_right, last_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 5.", "5"), ("#### 1,234,567", "1234567"), ("costs $1,000.50 today", "1000.50"), ("-5", "-5"),
        ("from 10-5", "5"), ("x = -3.0", "-3.0"), ("−7 degrees", "-7"), ("$-2", "-2"), ("-$2", "-2"), (".5 litres", ".5"),
        ("1 and 2, 3", "3"), ("100%", "100"), ("٤٢", "42"), ("5.", "5"), ("a-1", "1"), ("(3)-4", "4"), ("v1.2.3", "3"),
        ("9" * 60, "9" * 60), ("no number", None), ("", None), ("----", None), ("\0 8 \0", "8"),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


RIGHT: list[tuple[Check, str, str, bool | None]] = [
    ("exact", " Paris\n", "paris", True),
    ("exact", "Paris.", "Paris", False),
    ("exact", "STRASSE", "straße", True),
    ("exact", "", "", True),
    ("number", "So 2 + 3 = 5 apples.\n#### 5.0", "Two and three.\n#### 5", True),
    ("number", "That makes $1,250.", "900 + 350\n#### 1250", True),
    ("number", "It is 6 or 5", "#### 6", False),
    ("number", "No idea", "#### 6", False),
    ("number", "6", "none", None),
    ("number", "0.1", "#### 0.10000000000000000000000001", False),
    ("regex", "The capital is Paris, of course", r"\bparis\b", False),
    ("regex", "The capital is Paris, of course", r"(?i)\bparis\b", True),
    ("regex", "a\nb", r"^b$", False),
    ("regex", "", r"^$", True),
]


@pytest.mark.parametrize(("check", "answer", "reference", "right"), RIGHT)
def test_an_answer_is_right_as_the_reference_says(
    check: Check, answer: str, reference: str, right: bool | None
) -> None:
    assert is_right(answer, reference, check) is right


def done_by(checker: Checker, **options: Any) -> tuple[list[list[str]], dict[str, Any]]:
    begun: list[list[str]] = []
    found: dict[str, Any] = {}

    def begin(keys: Sequence[str]) -> None:
        begun.append(list(keys))

    for results in checker.do(checker.works(), begin, lambda: False):
        found |= results
    return begun, found


def test_a_pattern_that_would_never_end_holds_nothing_up() -> None:
    answers = given(question("bad", {"m": "a" * 60 + "b"}, r"(a|aa)+$"), question("good", {"m": "aa"}, r"(a|aa)+$"))
    started = time.monotonic()
    checker = Checker(answers, "regex", "checker")
    judged = checker.conclude(done_by(checker)[1])
    assert time.monotonic() - started < 5
    assert [(row["prompt_id"], row["score"]) for row in judged.scores] == [("good", 1.0)]
    assert ("warning", "1 answer was not scored: a search took too long.") in judged.words
    assert judged.values["unparsable"] == 1


def test_scores_are_rows_and_prompts_without_reference_are_counted() -> None:
    answers = given(
        question("p1", {"a": "5", "b": "6"}, "#### 5"), question("p2", {"a": "1"}), question("p3", {"b": "7"}, "7.0")
    )
    checker = Checker(answers, "number", "checker")
    _, done = done_by(checker)
    judged = checker.conclude(done)
    assert judged.scores == [
        {"prompt_id": "p1", "model": "a", "judge": "checker", "score": 1.0},
        {"prompt_id": "p1", "model": "b", "judge": "checker", "score": 0.0},
        {"prompt_id": "p3", "model": "b", "judge": "checker", "score": 1.0},
    ]
    assert judged.values == {"judged": 3, "score_mean": pytest.approx(2 / 3), "unparsable": 0}
    assert judged.words == [("info", "1 prompt was not checked, for want of a reference.")]
    assert checker.show(checker.works()[1], 0.0).said == "b, wrong: 6"


def test_no_reference_at_all_is_said_at_the_start() -> None:
    with pytest.raises(InputError, match="None of these prompts has a reference") as caught:
        Checker(given(question("p", {"m": "x"})), "exact", "checker")
    assert caught.value.failure.field == "judge"


@pytest.mark.parametrize("pattern", ["(", "[a", "(" * 5000 + ")" * 5000, "*"])
def test_a_reference_that_is_no_pattern_is_named_before_anything_is_judged(pattern: str) -> None:
    answers = given(question("p1", {"m": "x"}, "x"), question("p2", {"m": "x"}, pattern))
    with pytest.raises(DataError, match="The reference of the prompt “p2” is no regular expression"):
        Checker(answers, "regex", "checker")


def test_works_are_begun_before_they_are_done_and_a_stop_is_heard_between_two() -> None:
    answers = given(*(question(f"p{index}", {"m": "x"}, "x") for index in range(AT_ONCE + 5)))
    checker = Checker(answers, "exact", "checker")
    begun, done = done_by(checker)
    assert [len(each) for each in begun] == [AT_ONCE, 5]
    assert set(done) == set(checker.works()) and set(done.values()) == {1.0}
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Stopped):
        list(checker.do(checker.works(), lambda keys: None, stop))
    assert asked == 4
