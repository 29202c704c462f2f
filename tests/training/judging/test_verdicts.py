from __future__ import annotations

import pytest

from training.judging.verdicts import MOST_REASON, Winner, combine, excerpt, read_winner


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("A", "first"), ("b", "second"), ("tie", "tie"), ("TIE.", "tie"), ("1", "first"), ("2.", "second"),
        ("Both are fine.\n\nA\n", "first"), ("Reason.\nVerdict: **B**", "second"), ("[[A]]", "first"), ("[[C]]", "tie"),
        ("x\n**Tie**\n---\n", "tie"), ("$\\boxed{B}$", "second"), ("Final verdict: tie", "tie"), ("The winner is A.", "first"),
        ("Answer 2", "second"), ("answer: A", "first"), ("**Answer 1 is better.**", "first"), ("```\nB\n```", "second"),
        ("“A”", "first"), ("<B>", "second"), ("<think>A is worse</think>\nB", "second"), ("My verdict is: B", "second"),
        ("Draw", "tie"), ("A wins", "first"), ("Verdict: Answer 1", "first"), ("Winner: answer B is better.", "second"),
    ],
)  # fmt: skip
def test_a_last_line_that_is_a_verdict_is_read(text: str, winner: Winner) -> None:
    assert read_winner(text) == winner


@pytest.mark.parametrize(
    "text",
    [
        "", "\n \n", "A or B", "A\nbecause it is longer", "I cannot judge this.", "AB", "Answer 3", "3", "A is better than B",
        "Neither", "A and B tie", "The verdict", "not A", "\0", "שלום", "A B", "12", "Verdict:", "Verdict: answer", "tie?no", "a tie breaker",
    ],
)  # fmt: skip
def test_anything_else_is_no_verdict(text: str) -> None:
    assert read_winner(text) is None


AGREED: list[tuple[Winner, Winner, float]] = [("first", "second", 1.0), ("second", "first", 0.0), ("tie", "tie", 0.5)]
OTHER: list[tuple[Winner, Winner, str]] = [
    ("first", "first", "with the answer of “x” first it says “x” better, with that of “y” first “y” better."),
    ("second", "second", "with the answer of “x” first it says “y” better, with that of “y” first “x” better."),
    ("first", "tie", "with the answer of “x” first it says “x” better, with that of “y” first a tie."),
    ("tie", "second", "with the answer of “x” first it says a tie, with that of “y” first “x” better."),
]


@pytest.mark.parametrize(("a_first", "b_first", "preference"), AGREED)
def test_two_orders_that_agree_are_one_verdict(a_first: Winner, b_first: Winner, preference: float) -> None:
    verdict = combine(a_first, b_first, "x", "y", "Why.")
    assert (verdict.preference, verdict.agreed, verdict.reason) == (preference, True, "Why.")


@pytest.mark.parametrize(("a_first", "b_first", "words"), OTHER)
def test_two_orders_that_do_not_are_undecided_and_say_so(a_first: Winner, b_first: Winner, words: str) -> None:
    verdict = combine(a_first, b_first, "x", "y")
    assert (verdict.preference, verdict.agreed) == (0.5, False)
    assert verdict.reason == f"Undecided: {words}"


def test_an_excerpt_is_the_reason_in_one_short_line() -> None:
    assert excerpt("It is\n  right.\n\nA") == "It is right."
    assert excerpt("A") == "A"
    assert excerpt("nul \0 here\nB") == "nul here"
    assert len(excerpt("word " * 500 + "\nA")) == MOST_REASON + 1
    assert excerpt("") == ""
