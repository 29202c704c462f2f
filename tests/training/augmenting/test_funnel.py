"""The funnel by hand: each reason, their order, and what holds whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.augmenting.candidates import as_lines, candidate_rows, read_candidates
from training.augmenting.funnel import (
    LOOSEST,
    REASONS,
    Candidate,
    NewPrompt,
    Thresholds,
    extremes,
    is_hopeless,
    pair_row,
    reason_of,
    sift,
)
from training.augmenting.tally import funnel, in_words, nothing_left
from training.config.augment import AugmentConfig
from training.errors import DataError

USUAL = Thresholds(
    max_repetition=0.5, same_script=True, max_leak_similarity=0.9, max_prompt_similarity=0.95,
    max_answer_similarity=0.98, min_margin=0.5,
)  # fmt: skip
GOOD = Candidate("It is four.", True, 4, score=2.0, repetition=0.1)
BAD = Candidate("It is five.", True, 4, score=-1.0, repetition=0.2)
MIDDLE = Candidate("It may be four.", True, 5, score=0.5)


def prompt(*candidates: Candidate, **changes: Any) -> NewPrompt:
    """One that gives a pair, unless something is changed."""
    kept = NewPrompt(
        "p1", [{"role": "user", "content": "What is two plus two?"}], "source", leak_similarity=0.3, leak_nearest="h1",
        data_similarity=0.8, data_nearest="What is one plus one?", earlier_similarity=0.7, earlier_nearest="p0",
        answer_similarity=0.9, candidates=candidates or (GOOD, MIDDLE, BAD),
    )  # fmt: skip
    return replace(kept, **changes)


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_the_best_answer_is_chosen_and_the_worst_rejected() -> None:
    (found,) = sift([prompt()], USUAL)
    assert (found.reason, found.fates) == (None, ("chosen", "not best or worst", "rejected"))
    assert found.margin == 3.0
    assert pair_row(found) == {
        "prompt": [{"role": "user", "content": "What is two plus two?"}], "chosen": "It is four.",
        "rejected": "It is five.", "score_chosen": 2.0, "score_rejected": -1.0, "written_from": "source",
    }  # fmt: skip


def test_a_pair_on_a_prompt_that_was_drawn_says_nothing_of_what_it_was_written_from() -> None:
    (found,) = sift([prompt(written_from=None)], USUAL)
    assert "written_from" not in pair_row(found)


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        ("empty", prompt(**said(" \n"), candidates=())),
        ("truncated", prompt(ended=False, candidates=())),
        ("too few answers", prompt(GOOD)),
        ("too few answers", prompt(GOOD, replace(BAD, ended=False))),
        ("too few answers", prompt(GOOD, replace(BAD, text="  "))),
        ("too few answers", prompt(GOOD, replace(BAD, score=None))),
        ("repetitive", prompt(GOOD, replace(BAD, repetition=0.51))),
        ("repetitive", prompt(replace(GOOD, repetition=0.51), BAD)),
        ("wrong script", prompt(replace(GOOD, same_script=False), BAD)),
        ("leaked", prompt(leak_similarity=0.9)),
        ("leaked", prompt(leaked=True, leak_similarity=0.5)),
        ("near-duplicate", prompt(data_similarity=0.95)),
        ("near-duplicate", prompt(earlier_similarity=0.95)),
        ("alike", prompt(answer_similarity=0.98)),
        ("margin", prompt(GOOD, replace(BAD, score=1.6))),
        (None, prompt(GOOD, replace(BAD, score=1.5))),
        (None, prompt(leak_similarity=0.899, data_similarity=0.949, earlier_similarity=0.949, answer_similarity=0.979)),
        (None, prompt(replace(GOOD, repetition=0.5), BAD)),
        (None, prompt(leak_similarity=None, data_similarity=None, earlier_similarity=None)),
    ],
)
def test_each_filter_takes_what_it_is_for_and_a_threshold_is_where_it_begins(
    reason: str | None, changed: NewPrompt
) -> None:
    assert reason_of(changed, USUAL) == reason


def test_of_several_filters_that_hold_the_first_in_their_order_is_the_reason() -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("empty", said("")),
        ("truncated", {"ended": False}),
        ("too few answers", {"candidates": (GOOD,)}),
        ("repetitive", {"candidates": (replace(GOOD, repetition=0.9, score=0.0, same_script=False), replace(BAD, score=0.0))}),
        ("wrong script", {"candidates": (replace(GOOD, same_script=False, score=0.0), replace(BAD, score=0.0))}),
        ("leaked", {"leaked": True}),
        ("near-duplicate", {"data_similarity": 1.0}),
        ("alike", {"answer_similarity": 1.0}),
        ("margin", {"candidates": (replace(GOOD, score=0.0), replace(BAD, score=0.0))}),
    ]  # fmt: skip
    assert [reason for reason, _ in wrong] == list(REASONS)
    while wrong:
        changes: dict[str, Any] = {}
        for _, change in reversed(wrong):  # where two change the same, the earlier filter's change counts
            changes |= change
        assert reason_of(prompt(**changes), USUAL) == wrong.pop(0)[0]
    assert reason_of(prompt(), USUAL) is None


def test_equal_scores_give_no_pair_even_where_no_margin_is_asked_for() -> None:
    equal = prompt(GOOD, replace(BAD, score=GOOD.score))
    assert reason_of(equal, replace(USUAL, min_margin=0.0)) == "margin"
    assert reason_of(prompt(GOOD, replace(BAD, score=1.9)), replace(USUAL, min_margin=0.0)) is None


def test_of_equal_scores_the_first_is_the_best_and_the_last_the_worst() -> None:
    scores = [1.0, 3.0, 3.0, 1.0]
    assert extremes([replace(GOOD, score=score) for score in scores]) == (1, 3)
    assert extremes([replace(GOOD, score=2.0)] * 3) == (0, 2)
    assert extremes([GOOD]) is None


def test_answers_that_cannot_be_used_are_neither_best_nor_worst() -> None:
    candidates = (
        replace(GOOD, score=9.0, ended=False), GOOD, replace(BAD, score=-9.0, text=""), replace(BAD, score=None), BAD,
    )  # fmt: skip
    (found,) = sift([prompt(*candidates)], USUAL)
    assert found.fates == ("truncated", "chosen", "empty", "not judged", "rejected")


def test_the_fates_of_answers_to_a_prompt_that_gives_no_pair() -> None:
    alone, leaked = sift([prompt(GOOD, replace(BAD, ended=False)), prompt(leaked=True)], USUAL)
    assert alone.fates == ("no other answer", "truncated")
    assert leaked.fates == ("leaked", "not best or worst", "leaked")


def test_prompts_that_no_threshold_could_save_need_no_answers() -> None:
    lost = [said(""), {"ended": False}, {"leaked": True}, {"leak_similarity": 1.0}, {"earlier_similarity": 1.0}]
    for changes in lost:
        unanswered = replace(prompt(**changes), candidates=())
        assert is_hopeless(unanswered)
        assert reason_of(unanswered, LOOSEST) is not None
    assert not is_hopeless(prompt(leak_similarity=0.999, data_similarity=0.999))


# -- whatever the numbers are --------------------------------------------------------------------------------------

share = st.floats(0, 1)
candidates = st.builds(
    Candidate, text=st.sampled_from(["", " ", "yes", "no"]), ended=st.booleans(), tokens=st.none(),
    score=st.none() | st.floats(-5, 5) | st.sampled_from([0.0, 1.0]), repetition=share, same_script=st.booleans(),
)  # fmt: skip
prompts = st.builds(
    NewPrompt, prompt_id=st.uuids().map(str),
    messages=st.sampled_from(["", "Why?", "What?"]).map(lambda text: [{"role": "user", "content": text}]),
    written_from=st.none() | st.just("source"), ended=st.booleans(), leaked=st.booleans(),
    leak_similarity=st.none() | share, leak_nearest=st.none(), data_similarity=st.none() | share,
    data_nearest=st.none(), earlier_similarity=st.none() | share, earlier_nearest=st.none(),
    answer_similarity=st.none() | share, candidates=st.lists(candidates, max_size=4).map(tuple),
)  # fmt: skip
thresholds = st.builds(
    Thresholds, max_repetition=share, same_script=st.booleans(), max_leak_similarity=share,
    max_prompt_similarity=share, max_answer_similarity=share, min_margin=st.floats(0, 3),
)  # fmt: skip


@given(st.lists(prompts, max_size=8), thresholds, thresholds)
@settings(max_examples=300, deadline=None)
def test_a_looser_threshold_never_keeps_fewer(found: list[NewPrompt], one: Thresholds, other: Thresholds) -> None:
    looser = Thresholds(
        max_repetition=max(one.max_repetition, other.max_repetition),
        same_script=one.same_script and other.same_script,
        max_leak_similarity=max(one.max_leak_similarity, other.max_leak_similarity),
        max_prompt_similarity=max(one.max_prompt_similarity, other.max_prompt_similarity),
        max_answer_similarity=max(one.max_answer_similarity, other.max_answer_similarity),
        min_margin=min(one.min_margin, other.min_margin),
    )
    kept = [{each.prompt.prompt_id for each in sift(found, some) if each.reason is None} for some in (one, looser)]
    assert kept[0] <= kept[1]


@given(st.lists(prompts, max_size=8), thresholds)
@settings(max_examples=300, deadline=None)
def test_every_answer_has_one_fate_and_the_counts_add_up(found: list[NewPrompt], some: Thresholds) -> None:
    sifted = sift(found, some)
    for each in sifted:
        assert len(each.fates) == len(each.prompt.candidates)
        ends = each.fates.count("chosen"), each.fates.count("rejected")
        assert ends == ((1, 1) if each.reason is None else (0, 0))
    counts = funnel(sifted, some, judge="reward:judge")
    assert counts["prompts"]["new"] == len(found)
    assert counts["prompts"]["kept"] + sum(counts["prompts"]["dropped"].values()) == len(found)
    assert counts["answers"]["drawn"] == sum(len(each.candidates) for each in found)
    assert counts["answers"]["kept"] + sum(counts["answers"]["dropped"].values()) == counts["answers"]["drawn"]
    assert counts["answers"]["kept"] == 2 * counts["prompts"]["kept"]
    for name in ("prompts", "answers", "held_out"):
        assert sum(counts["similarities"][name]["counts"]) == counts["similarities"][name]["count"]


@given(st.lists(prompts, max_size=6, unique_by=lambda each: each.prompt_id), thresholds)
@settings(max_examples=100, deadline=None)
def test_candidates_that_are_written_and_read_are_sifted_alike(
    tmp_path_factory: pytest.TempPathFactory, found: list[NewPrompt], some: Thresholds
) -> None:
    sifted = sift(found, some)
    path = tmp_path_factory.mktemp("candidates") / "candidates.jsonl"
    path.write_bytes(as_lines(candidate_rows(sifted)))
    again = sift(read_candidates(path) if found else [], some)
    assert [(each.reason, each.fates) for each in again] == [(each.reason, each.fates) for each in sifted]


# -- in numbers and words ------------------------------------------------------------------------------------------


def test_every_answer_has_a_line_with_its_measures_and_its_fate() -> None:
    rows = list(candidate_rows(sift([prompt(), prompt(candidates=(), leaked=True, prompt_id="p2")], USUAL)))
    assert [(row["prompt_id"], row.get("fate")) for row in rows] == [
        ("p1", "chosen"), ("p1", "not best or worst"), ("p1", "rejected"), ("p2", None),
    ]  # fmt: skip
    assert rows[0] == {
        "prompt_id": "p1", "written_from": "source", "prompt": prompt().messages, "prompt_reason": None,
        "prompt_ended": True, "leaked": False, "leak_similarity": 0.3, "leak_nearest": "h1", "data_similarity": 0.8,
        "data_nearest": "What is one plus one?", "earlier_similarity": 0.7, "earlier_nearest": "p0",
        "answer": "It is four.", "ended": True, "tokens": 4, "score": 2.0, "repetition": 0.1, "same_script": True,
        "answer_similarity": 0.9, "margin": 3.0, "fate": "chosen",
    }  # fmt: skip
    assert "margin" not in rows[1]
    assert rows[3]["prompt_reason"] == "leaked" and "answer" not in rows[3]


def test_a_histogram_counts_into_fiftieths_and_what_lies_below_zero_into_the_first() -> None:
    values = [-0.2, 0.0, 0.019, 0.02, 0.95, 1.0]
    found = [prompt(data_similarity=each, earlier_similarity=None) for each in values]
    counted = funnel(sift(found, USUAL), USUAL, "")
    prompts_ = counted["similarities"]["prompts"]
    assert (prompts_["counts"][0], prompts_["counts"][1], prompts_["counts"][47], prompts_["counts"][49]) == (
        3,
        1,
        1,
        1,
    )
    assert (prompts_["threshold"], prompts_["low"], prompts_["width"], len(prompts_["counts"])) == (0.95, 0.0, 0.02, 50)


def test_the_funnel_in_words_names_thresholds() -> None:
    said_ = in_words(sift([prompt(), prompt(data_similarity=0.97), prompt(data_similarity=0.99)], USUAL), USUAL)
    assert said_ == [
        "1 of 3 prompts gives a pair.",
        "Dropped: 2 near-duplicates of the data's prompts or of earlier new ones (max_prompt_similarity 0.95).",
    ]


def test_where_nothing_is_left_the_threshold_that_would_save_most_is_named() -> None:
    found = [
        prompt(data_similarity=0.97),
        prompt(data_similarity=0.99),
        prompt(leaked=True),
        prompt(answer_similarity=0.99),
    ]
    error = nothing_left(sift(found, USUAL), USUAL)
    assert isinstance(error, DataError)
    assert "None of 4 prompts gives a pair: 1 ask what is held out" in error.failure.message
    assert "2 near-duplicates" in error.failure.message and "max_prompt_similarity 0.95" in error.failure.message
    assert error.failure.hint.startswith("Raise “Near-duplicate from” (max_prompt_similarity, now 0.95): up to 2 ")
    assert error.failure.field == "max_prompt_similarity"


def test_where_only_several_thresholds_together_would_help_all_are_named() -> None:
    found = [prompt(data_similarity=0.97, answer_similarity=0.99)]
    hint = nothing_left(sift(found, USUAL), USUAL).failure.hint
    assert "with all filters open, 1 would be kept" in hint and "max_prompt_similarity" in hint


@pytest.mark.parametrize(
    ("found", "said_"),
    [
        ([replace(prompt(**said("")), candidates=())] * 3, "The writer writes nothing"),
        ([prompt(GOOD, replace(BAD, score=2.0))], "tells no two answers apart"),
        ([prompt(leaked=True)], "hold out other prompts"),
        ([prompt(data_similarity=1.0)], "raise temperature"),
    ],
)
def test_where_no_threshold_would_help_something_else_is_advised(found: list[NewPrompt], said_: str) -> None:
    error = nothing_left(sift(found, USUAL), USUAL)
    assert said_ in error.failure.hint and "refilter" not in error.failure.hint


def test_the_thresholds_are_the_settings_under_filters() -> None:
    config = AugmentConfig(model="run:sft", dataset="data:pairs", judge="run:reward", max_repetition=0.3)
    assert Thresholds.of(config).max_repetition == 0.3
    extras = {name: info.json_schema_extra for name, info in AugmentConfig.model_fields.items()}
    named = {name for name, extra in extras.items() if isinstance(extra, dict) and extra["group"] == "Filters"}
    assert set(Thresholds.__dataclass_fields__) == named


def test_a_damaged_file_of_candidates_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "candidates.jsonl"
    path.write_bytes(as_lines(candidate_rows(sift([prompt()], USUAL))) + orjson.dumps({"prompt_id": "x"}) + b"\n")
    with pytest.raises(DataError, match=r"Line 4 of candidates\.jsonl"):
        read_candidates(path)
