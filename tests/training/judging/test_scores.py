from __future__ import annotations

import pytest

from tests.training.judging.given import given, question
from training.judging.scores import FIRST, SECOND, score_key, score_rows, score_works

ANSWERS = given(
    question("p1", {"a": "x", "b": "y", "c": "z"}), question("p2", {"a": "x", "c": "z"}), question("p3", {"b": "y"})
)


def test_all_answers_are_works_and_those_judged_twice_come_again_at_the_end() -> None:
    works = score_works(ANSWERS, {"p2"})
    assert works == [
        *(score_key("p1", model) for model in "abc"), score_key("p2", "a"), score_key("p2", "c"), score_key("p3", "b"),
        score_key("p2", "a", SECOND), score_key("p2", "c", SECOND),
    ]  # fmt: skip
    assert len(set(works)) == len(works)


def test_keys_differ_whatever_names_hold() -> None:
    names = ["a", "a]", '"', "a,b", ",", "1", "", "\n", "א"]
    keys = [score_key(one, other, time) for one in names for other in names for time in (FIRST, SECOND)]
    assert len(set(keys)) == len(keys)


def test_noise_is_the_mean_difference_and_the_share_of_pairs_whose_order_changes() -> None:
    """p1: a 1 -> 2, b 3 -> 2.5, c 0 -> 0: of a-b, a-c, b-c no order changes. p2: a 1 -> 1, c 2 -> 0.5: it changes.
    Differences 1, 0.5, 0, 0, 1.5: mean 0.6. One of four pairs changes."""
    first = {("p1", "a"): 1.0, ("p1", "b"): 3.0, ("p1", "c"): 0.0, ("p2", "a"): 1.0, ("p2", "c"): 2.0, ("p3", "b"): 9.0}
    second = {("p1", "a"): 2.0, ("p1", "b"): 2.5, ("p1", "c"): 0.0, ("p2", "a"): 1.0, ("p2", "c"): 0.5}
    done = {score_key(*place): value for place, value in first.items()}
    done |= {score_key(*place, SECOND): value for place, value in second.items()}
    judged = score_rows(ANSWERS, done, "reward:x", {"p1", "p2"})
    assert [row["score"] for row in judged.scores] == [1.0, 3.0, 0.0, 1.0, 2.0, 9.0], "the first scores count"
    assert judged.values == {
        "judged": 6, "score_mean": pytest.approx(16 / 6), "repeat_difference": pytest.approx(0.6),
        "repeat_disagreement": 0.25,
    }  # fmt: skip


def test_what_is_not_scored_yet_or_at_all_has_no_row_and_no_noise() -> None:
    done = {score_key("p1", "a"): 1.0, score_key("p2", "a"): None, score_key("p2", "a", SECOND): 3.0}
    judged = score_rows(ANSWERS, done, "reward:x", {"p1", "p2"})
    assert len(judged.scores) == 1 and judged.values == {"judged": 1, "score_mean": 1.0}
    assert score_rows(ANSWERS, {}, "reward:x").values == {"judged": 0}
