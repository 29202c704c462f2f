"""When two prompts are the same text."""

from __future__ import annotations

import pytest

from training.data.normal import content_id, normal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of France?", "  what IS the capital of\n\tFrance "),
        ("“Hello”, she said – didn’t she?", '"hello" she said - didn\'t she'),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("Straße", "STRASSE"),
        ("soft\u00adhyphen and zero\u200bwidth", "softhyphen and zerowidth"),
        ("a well-known fact", "a well known fact"),
        ("## Title\n\nText.", "## title text"),
        ("cafe\u0301", "café"),
        ("5 - 3", "5−3"),
    ],
)
def test_case_width_spaces_and_punctuation_do_not_count(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello in C", "Hello in C++"),
        ("Hello in C++", "Hello in C#"),
        ("3 + 4", "3 - 4"),
        ("3 * 4", "3 / 4"),
        ("3.4", "34"),
        ("3.4", "3 4"),
        ("What is -5 squared?", "What is 5 squared?"),
        ("10:30", "10.30"),
        ("50%", "50"),
        ("a < b", "a > b"),
        ("one", "two"),
    ],
)
def test_signs_that_carry_meaning_count(one: str, other: str) -> None:
    assert normal(one) != normal(other)


def test_a_text_of_signs_alone_is_itself() -> None:
    assert normal(" ?! ") == "?!"
    assert normal("😀") == "😀"
    assert normal(" \n ") == ""


def test_an_id_is_of_the_content_and_the_roles() -> None:
    ask, system = {"role": "user", "content": "Hi there!"}, {"role": "system", "content": "Hi there!"}
    assert content_id([ask]) == content_id([{"role": "user", "content": "hi, there"}])  # type: ignore[list-item]
    assert content_id([ask]) != content_id([system])  # type: ignore[list-item]
    assert content_id([ask]) != content_id([ask, ask])  # type: ignore[list-item]
    assert len(content_id([ask])) == 12  # type: ignore[list-item]
