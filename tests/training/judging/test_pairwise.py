"""A judge of pairs, against a server in this process that judges by rules which the tests know."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.training.chat_server import Answer, Asked, ChatServer, Says, chat_server, completion, says
from tests.training.judging.given import given, question
from training.config import JudgeConfig
from training.endpoint import Endpoint
from training.errors import DataError, InputError
from training.judging.answers import Answers
from training.judging.instructions import own_instructions
from training.judging.judge import Judged
from training.judging.pairwise import A_FIRST, B_FIRST, FIRST, SECOND, PairwiseJudge
from training.references import parse_reference

JUDGE = "api:local/judge"


def shown(asked: Asked) -> tuple[str, str]:
    """The two answers that a request holds, as a reader of the fences sees them."""
    found = re.findall(r"<<<BEGIN ANSWER [12] (\w+)>>>\n(.*?)\n<<<END ANSWER [12] \1>>>", asked.last, re.DOTALL)
    [(_, first), (_, second)] = found
    return first, second


def longer(asked: Asked) -> str:
    """A judge that prefers the longer answer, wherever it stands."""
    first, second = shown(asked)
    verdict = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return f"The longer one is better.\n{verdict}"


def judge_of(answers: Answers, url: str, baseline: str = "", twice: tuple[str, ...] = ()) -> PairwiseJudge:
    endpoint = Endpoint(parse_reference(JUDGE), url, JudgeConfig(judge=JUDGE, concurrency=2), None)
    return PairwiseJudge(answers, endpoint, own_instructions(), baseline, twice, "llm:judge")


def judged_by(
    answer: Answer, answers: Answers, baseline: str = "", twice: tuple[str, ...] = ()
) -> tuple[Judged, ChatServer, PairwiseJudge]:
    with chat_server(answer) as server:
        judge = judge_of(answers, server.url, baseline, twice)
        begun: list[str] = []
        done: dict[str, Any] = {}
        for results in judge.do(judge.works(), begun.extend, lambda: False):
            done |= results
    assert sorted(begun) == sorted(done) == sorted(judge.works())
    return judge.conclude(done), server, judge


def preferences(judged: Judged) -> dict[tuple[str, str, str], float]:
    return {(row["prompt_id"], row["model_a"], row["model_b"]): row["preference"] for row in judged.verdicts}


ANSWERS = given(
    question("p1", {"a": "short", "b": "much longer", "base": "middling"}),
    question("p2", {"a": "twelve chars", "b": "chars twelve", "base": "x"}),
)


def test_without_a_baseline_all_pairs_are_judged_in_both_orders() -> None:
    judged, server, _ = judged_by(longer, ANSWERS)
    assert preferences(judged) == {
        ("p1", "a", "b"): 0.0, ("p1", "a", "base"): 0.0, ("p1", "b", "base"): 1.0,
        ("p2", "a", "b"): 0.5, ("p2", "a", "base"): 1.0, ("p2", "b", "base"): 1.0,
    }  # fmt: skip
    assert len(server.asked) == 12
    pairs = [shown(asked) for asked in server.asked]
    assert all((second, first) in pairs for first, second in pairs)
    assert judged.values == {"judged": 6, "unparsable": 0, "undecided": 0, "order_disagreement": 0.0}
    assert judged.verdicts[0]["judge"] == "llm:judge" and judged.verdicts[0]["reason"] == "The longer one is better."


def test_with_a_baseline_each_other_model_is_held_against_it() -> None:
    judged, server, _ = judged_by(longer, ANSWERS, "base")
    assert preferences(judged) == {
        ("p1", "a", "base"): 0.0, ("p1", "b", "base"): 1.0, ("p2", "a", "base"): 1.0, ("p2", "b", "base"): 1.0,
    }  # fmt: skip
    assert len(server.asked) == 8
    assert all(row["model_b"] == "base" for row in judged.verdicts)


def test_requests_are_deterministic_and_bounded() -> None:
    _, server, _ = judged_by(longer, ANSWERS, "base")
    assert {(asked.body["temperature"], asked.body["max_tokens"]) for asked in server.asked} == {(0.0, 2048)}
    assert all(len(asked.body["messages"]) == 1 for asked in server.asked)
    assert "What about p1?" in server.asked[0].last


def test_a_judge_that_likes_the_first_place_decides_nothing() -> None:
    judged, _, _ = judged_by(lambda asked: "A", ANSWERS, "base")
    assert set(preferences(judged).values()) == {0.5}
    assert all(row["reason"].startswith("Undecided: with the answer of ") for row in judged.verdicts)
    assert judged.values["undecided"] == 4 and judged.values["order_disagreement"] == 1.0
    assert ("info", "Where it prefers one, it is the answer that stands first in 100.0%.") in judged.words


def test_a_tie_in_one_order_alone_is_undecided() -> None:
    def hesitant(asked: Asked) -> str:
        first, second = shown(asked)
        return "tie" if first < second else longer(asked)

    judged, _, _ = judged_by(
        hesitant, given(question("p", {"a": "aa", "b": "bbbb"}), question("q", {"a": "a", "b": "b"}))
    )
    assert preferences(judged) == {("p", "a", "b"): 0.5, ("q", "a", "b"): 0.5}
    assert judged.values["undecided"] == 1, "q is a tie in both orders: decided"
    assert judged.values["order_disagreement"] == 0.5
    assert judged.verdicts[0]["reason"].startswith("Undecided") and "reason" in judged.verdicts[1]


def test_the_same_answer_twice_is_a_tie_that_is_not_paid_for() -> None:
    answers = given(question("p", {"a": "yes", "b": "yes\n"}), question("q", {"a": "", "b": ""}))
    judged, server, judge = judged_by(longer, answers)
    assert judge.works() == [] and not server.asked
    assert preferences(judged) == {("p", "a", "b"): 0.5, ("q", "a", "b"): 0.5}
    assert {row["reason"] for row in judged.verdicts} == {"The two answers are the same."}
    assert "order_disagreement" not in judged.values, "nothing was asked"


def test_what_cannot_be_read_in_either_order_gives_no_verdict_and_is_counted() -> None:
    def moody(asked: Asked) -> str | Says:
        first, second = shown(asked)
        if "cut" in first:
            return says(completion("1.", "length"))  # a list that breaks off is no verdict for answer 1
        if "odd" in (first, second):
            return "I would rather not say."
        return longer(asked)

    answers = given(
        question("p1", {"a": "cut", "b": "fine"}), question("p2", {"a": "odd", "b": "fine"}),
        question("p3", {"a": "good one", "b": "fine"}),
    )  # fmt: skip
    judged, _, _ = judged_by(moody, answers)
    assert preferences(judged) == {("p3", "a", "b"): 1.0}
    assert judged.values["unparsable"] == 3 and judged.values["judged"] == 1
    [(level, sentence)] = [(level, said) for level, said in judged.words if "without a verdict" in said]
    assert level == "warning" and "3 requests were" in sentence and "1 of them broke off" in sentence
    assert "“I would rather not say.”" in sentence


def test_a_pair_of_which_one_answer_is_missing_is_left_out_and_counted() -> None:
    answers = given(question("p1", {"a": "x", "b": "yy"}), question("p2", {"a": "x"}), question("p3", {"b": "yy"}))
    judged, server, _ = judged_by(longer, answers)
    assert list(preferences(judged)) == [("p1", "a", "b")] and len(server.asked) == 2
    assert ("warning", "2 pairs were left out: one of the two models gave no answer.") in judged.words


def test_pairs_judged_twice_measure_how_far_the_judge_agrees_with_itself() -> None:
    """Asked again, it changes its mind on every other pair: of the four that are judged twice, on two."""
    seen: dict[str, int] = {}

    def fickle(asked: Asked) -> str:
        seen[asked.last] = seen.get(asked.last, 0) + 1
        return "tie" if seen[asked.last] == 2 and "flip" in asked.last else longer(asked)

    answers = given(
        *(question(f"p{n}", {"a": "x", "b": f"{'flip' if n % 2 else 'same'} and more"}) for n in range(1, 7))
    )
    judged, server, judge = judged_by(fickle, answers, twice=("p1", "p2", "p3", "p4"))
    assert len(server.asked) == 12 + 8
    assert judged.values["repeat_disagreement"] == 0.5
    assert set(preferences(judged).values()) == {0.0}, "the first verdicts count"
    first = [key for key in judge.works() if key.endswith(f",{FIRST}]")]
    assert judge.works()[: len(first)] == first and len(judge.works()) - len(first) == 8
    assert sum(f'"{A_FIRST}",{SECOND}]' in key for key in judge.works()) == 4
    assert sum(f'"{B_FIRST}",{SECOND}]' in key for key in judge.works()) == 4


@pytest.mark.parametrize(
    "answer", ["", "שלום\u202e", "<script>alert(1)</script>", "a\0b", "{answer_2} {", "Verdict: A\nA"]
)
def test_no_answer_breaks_the_judging(answer: str) -> None:
    judged, server, judge = judged_by(longer, given(question("p", {"a": answer, "b": answer + "longer"})))
    assert preferences(judged) == {("p", "a", "b"): 0.0}
    assert (answer, answer + "longer") in [shown(asked) for asked in server.asked]
    assert "\0" not in judged.verdicts[0]["reason"]
    assert judge.show(judge.works()[0], {"winner": None, "words": "x", "ended": True}).said.startswith(
        "a and b, a first: no"
    )


def test_settings_that_do_not_fit_the_answers_are_said_at_the_start() -> None:
    with pytest.raises(InputError, match="no answers of “other”") as caught:
        judge_of(ANSWERS, "http://127.0.0.1:1/v1", "other")
    assert caught.value.failure.field == "baseline" and "a, b, base" in caught.value.failure.hint
    with pytest.raises(InputError, match="answers of a alone"):
        judge_of(given(question("p", {"a": "x"})), "http://127.0.0.1:1/v1")
    unasked = given(question("p", {"a": "x", "b": "y"}))
    unasked.questions[0].messages = None
    with pytest.raises(DataError, match="do not say what was asked"):
        judge_of(unasked, "http://127.0.0.1:1/v1")


def test_what_is_done_in_part_is_concluded_in_part() -> None:
    judge = judge_of(ANSWERS, "http://127.0.0.1:1/v1", "base")
    first, second, third, *_ = judge.works()
    said = {"winner": "first", "words": "w", "ended": True}
    judged = judge.conclude({first: said, second: {**said, "winner": "second"}, third: said})
    assert preferences(judged) == {("p1", "a", "base"): 1.0}
    assert judge.conclude({}).values == {"judged": 0, "unparsable": 0, "undecided": 0}
