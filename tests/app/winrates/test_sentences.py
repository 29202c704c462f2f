"""What is said of figures: literal sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.winrates.bradley_terry import bradley_terry
from app.winrates.sentences import sentence_of, sentence_of_rate, warnings_of
from app.winrates.stats import Comparison, Rate, compare, win_rate

UNSURE = Comparison(500, 0.021, -0.039, 0.081, 0.51, 0.92, 8234)


def test_a_difference_that_is_not_distinguishable_says_how_many_prompts_would_show_it() -> None:
    expected = (
        "DPO beats SFT by 2.1 points (95 % interval -3.9 to 8.1): not distinguishable with 500 prompts; "
        "about 8,200 would be needed for 80 % power."
    )
    assert sentence_of(UNSURE, "DPO", "SFT") == expected
    turned = replace(UNSURE, difference=-0.021, ci_low=-0.081, ci_high=0.039)
    assert sentence_of(turned, "SFT", "DPO") == expected


@pytest.mark.parametrize(
    ("needed", "words"),
    [(501, "about 500 "), (1539, "about 1,500 "), (999_999, "about 1,000,000 "), (10**12, "more than a million ")],
)
def test_prompts_needed_are_said_with_two_digits(needed: int, words: str) -> None:
    assert f"; {words}would be needed" in sentence_of(replace(UNSURE, prompts_needed=needed), "a", "b")


def test_a_significant_difference_says_so_with_holms_p_value() -> None:
    clear = Comparison(500, 0.094, 0.035, 0.153, 0.0015, 0.0045, 409)
    start = "SDA beats DPO by 9.4 points (95 % interval 3.5 to 15.3): significant with 500 prompts"
    assert sentence_of(clear, "SDA", "DPO") == f"{start} (p = 0.0045)."
    assert sentence_of(replace(clear, p_value_holm=0.0003), "SDA", "DPO") == f"{start} (p < 0.001)."


def test_a_difference_that_only_the_other_comparisons_make_doubtful_says_that() -> None:
    found = replace(UNSURE, p_value=0.02, p_value_holm=0.12, prompts_needed=480)
    assert sentence_of(found, "DPO", "SFT").endswith(
        ": not distinguishable with 500 prompts, since this is one of several comparisons "
        "(p = 0.02 alone, 0.12 among them)."
    )


def test_no_smaller_number_of_prompts_is_said_to_be_needed() -> None:
    few = compare([1, 1, 1, 1, 0.5], [0, 0, 0, 0, 0])  # five prompts: p = 0.0625 at best
    assert sentence_of(few, "a", "b").endswith(": not distinguishable with 5 prompts.")


def test_small_missing_and_absent_differences_have_words() -> None:
    assert sentence_of(replace(UNSURE, difference=0.0002), "a", "b").startswith("a beats b by less than 0.1 points (")
    level = compare([1, 0] * 10, [0, 1] * 10)
    assert sentence_of(level, "a", "b").startswith("a and b win equally often (95 % interval -48.0 to 48.0): not ")
    one = compare([1], [0])
    assert sentence_of(one, "a", "b") == "a beats b by 100.0 points: not distinguishable with 1 prompt."
    assert "interval 0.0 to 8.1" in sentence_of(replace(UNSURE, ci_low=-0.0001), "a", "b")


def test_a_rate_is_held_against_even() -> None:
    rate = Rate(500, 313, 187, 0, 0.627, 0.0216, 0.584, 0.669)
    assert sentence_of_rate(rate, "SFT", "instruct") == (
        "SFT wins 62.7 % against instruct (95 % interval 58.4 to 66.9) on 500 prompts: better than even."
    )
    for low, high, words in ((0.41, 0.49, "worse than even"), (0.45, 0.55, "not distinguishable from even")):
        found = sentence_of_rate(replace(rate, ci_low=low, ci_high=high), "SFT", "instruct")
        assert found.endswith(f": {words}.")


def test_a_rate_that_is_not_told_from_even_says_how_many_prompts_would_tell_it() -> None:
    # sd = 0.5021 with 52 wins of 100; ((1.96 + 0.8416) 0.5021 / 0.02)^2 = 4,947
    found = sentence_of_rate(win_rate([1] * 52 + [0] * 48), "dpo", "sft")
    assert found.endswith(": not distinguishable from even; about 4,900 would be needed for 80 % power.")


def test_ties_alone_are_told_as_ties_and_not_as_a_sure_half() -> None:
    assert sentence_of_rate(win_rate([0.5] * 40), "dpo", "sft") == "dpo ties with sft on all 40 prompts."


def test_a_handful_of_prompts_is_too_few_to_hold_against_even() -> None:
    assert sentence_of_rate(win_rate([0.8, 0.9]), "a", "b").endswith("on 2 prompts: too few to say more.")
    assert sentence_of_rate(win_rate([0.8]), "a", "b") == "a wins 80.0 % against b on 1 prompt: too few to say more."
    assert sentence_of_rate(win_rate([1] * 6), "a", "b").endswith("on 6 prompts: better than even.")


def test_models_without_a_score_are_named_with_the_reason() -> None:
    found = bradley_terry([0, 1, 2, 2, 2], [1, 2, 1, 1, 3], [1, 1, 1, 1, 1], range(5), models=5)
    assert warnings_of(found, ["best", "b", "c", "worst", "lone"]) == [
        "Without a score: worst (lost every game, so no score is low enough).",
        "Without a score: best (won every game, so no score is high enough).",
        "Without a score: lone (not linked to the other models by wins both ways, so there is no common scale).",
    ]
    linked = bradley_terry([0, 1], [1, 0], [1, 1], np.arange(2), models=2)
    assert warnings_of(linked, ["a", "b"]) == []
    lopsided = bradley_terry([0, 0, 0], [1, 2, 3], [1, 1, 1], range(3), models=4)
    assert warnings_of(lopsided, ["a", "b", "c", "d"])[0].startswith("No two models have both won")
