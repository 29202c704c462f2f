"""A judge of pairs: a chat model behind an endpoint says which of two answers is better. No torch here.

What it does: shows every pair in both orders, since such judges like one place better than the other (Zheng et al.
2023); two equal verdicts are one, others are undecided and count as half; equal answers are a tie, and not paid for;
a share of the pairs again, to measure how far the judge agrees with itself.
What it does not: scores, more than two answers at once, majority over many tries.

Each request is a work of its own: what was answered is never paid for again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from training.endpoint import Endpoint, Request
from training.errors import InputError
from training.judging.answers import Answers, Question
from training.judging.instructions import Instructions, as_text, is_cut
from training.judging.judge import Begin, Judged, Shown, Stop, parts_of, work_key
from training.judging.verdicts import Verdict, combine, excerpt, read_winner
from training.words import were

A_FIRST, B_FIRST = "a first", "b first"
FIRST, SECOND = 1, 2
OPTIONS = {"temperature": 0.0, "max_tokens": 2048}
SAME = "The two answers are the same."
SHOWN_UNPARSABLE = 3  # examples that the log holds

Pair = tuple[Question, str, str]


class PairwiseJudge:
    """Pairs of answers, compared by a model behind an endpoint (training.judging.judge.Judge)."""

    noun, costs = "request", True

    def __init__(
        self, answers: Answers, endpoint: Endpoint, instructions: Instructions, baseline: str,
        twice: Collection[str], name: str,
    ) -> None:  # fmt: skip
        """`baseline`: the model that each other is compared with; empty: each with each. Raises InputError."""
        self._answers, self._endpoint, self._instructions = answers, endpoint, instructions
        self._twice, self._name = twice, name
        self._models = _model_pairs(answers.models, baseline)
        self._questions = {question.prompt_id: question for question in answers.questions}
        for question in answers.questions:
            answers.asked(question)
        self.identity = {"model": endpoint.model, "instructions": instructions.sha256}

    def pairs(self) -> Iterator[Pair]:
        """Every prompt and two models that answered it, prompt by prompt."""
        for question in self._answers.questions:
            for a, b in self._models:
                if a in question.answers and b in question.answers:
                    yield question, a, b

    def works(self) -> list[str]:
        """One key a request: first all pairs in both orders, then those that are judged twice."""
        keys = []
        for time in (FIRST, SECOND):
            for question, a, b in self.pairs():
                if not _same(question, a, b) and (time == FIRST or question.prompt_id in self._twice):
                    keys += [_key(question, a, b, order, time) for order in (A_FIRST, B_FIRST)]
        return keys

    def do(self, keys: Sequence[str], begin: Begin, stop: Stop) -> Iterator[dict[str, Any]]:
        for key, reply in self._endpoint.ask(map(self._request, keys), stop, lambda key: begin([key])):
            winner = read_winner(reply.text) if reply.ended else None  # what was cut may end in a list's “1.”
            yield {key: {"winner": winner, "words": excerpt(reply.text), "ended": reply.ended}}

    def _request(self, key: str) -> Request:
        return Request(key, [{"role": "user", "content": self._content(key)}], OPTIONS)

    def _content(self, key: str) -> str:
        prompt_id, a, b, order, _ = parts_of(key)
        question = self._questions[prompt_id]
        first, second = (a, b) if order == A_FIRST else (b, a)
        return self._instructions.fill(self._answers.asked(question), question.answers[first], question.answers[second])

    def conclude(self, done: Mapping[str, Any]) -> Judged:
        """The verdicts, one a pair that was judged in both orders, and how the judge did."""
        judged, tally = Judged(), _Tally()
        for question, a, b in self.pairs():
            verdict = Verdict(0.5, True, SAME) if _same(question, a, b) else self._verdict(done, question, a, b, FIRST)
            tally.add(verdict, _same(question, a, b))
            if verdict is None:
                continue
            judged.verdicts.append(self._row(question, a, b, verdict))
            again = self._verdict(done, question, a, b, SECOND)
            if again is not None:
                tally.changed.append(again.preference != verdict.preference)
        results = [result for result in done.values() if result is not None]
        judged.values = {"judged": len(judged.verdicts), "unparsable": sum(each["winner"] is None for each in results)}
        judged.values |= tally.values()
        judged.words = [*tally.words(results), *self._unparsable(results), *self._left_out()]
        return judged

    def _verdict(self, done: Mapping[str, Any], question: Question, a: str, b: str, time: int) -> Verdict | None:
        """None where an order is not answered yet, or its answer could not be read."""
        a_first, b_first = (done.get(_key(question, a, b, order, time)) for order in (A_FIRST, B_FIRST))
        if not a_first or not b_first or a_first["winner"] is None or b_first["winner"] is None:
            return None
        return combine(a_first["winner"], b_first["winner"], a, b, a_first["words"])

    def _row(self, question: Question, a: str, b: str, verdict: Verdict) -> dict[str, Any]:
        row = {
            "prompt_id": question.prompt_id, "model_a": a, "model_b": b, "judge": self._name,
            "preference": verdict.preference,
        }  # fmt: skip
        return {**row, "reason": verdict.reason} if verdict.reason else row

    def _unparsable(self, results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        unread = [each for each in results if each["winner"] is None]
        if not unread:
            return []
        cut = sum(not each["ended"] for each in unread)
        told = f"{were(len(unread), 'request')} answered without a verdict"
        told += f" ({cut:,} of them broke off)" if cut else ""
        examples = "; ".join(f"“{each['words'][:120]}”" for each in unread[:SHOWN_UNPARSABLE])
        return [("warning", f"{told}, so their pairs have none. For example: {examples}.")]

    def _left_out(self) -> list[tuple[str, str]]:
        """Pairs that are not judged, and texts of which a judge sees the beginning alone."""
        lacking = len(self._answers.questions) * len(self._models) - sum(1 for _ in self.pairs())
        words = (
            [("warning", f"{were(lacking, 'pair')} left out: one of the two models gave no answer.")] if lacking else []
        )
        long = sum(is_cut(question.answers[model]) for question, model in self._answers.each())
        long += sum(is_cut(as_text(question.messages or [])) for question in self._answers.questions)
        return (
            [*words, ("warning", f"{were(long, 'text')} too long for a judge and cut at the end.")] if long else words
        )

    def show(self, key: str, result: Any) -> Shown:
        _, a, b, order, _ = parts_of(key)
        return Shown(self._content(key), f"{a} and {b}, {order}: {result['winner'] or 'no verdict'}. {result['words']}")


class _Tally:
    """How a judge did, pair by pair."""

    def __init__(self) -> None:
        self.same = self.agreed = self.undecided = 0
        self.changed: list[bool] = []  # of pairs judged twice: whether the outcome was another one

    def add(self, verdict: Verdict | None, same: bool) -> None:
        self.same += same
        if verdict is not None and not same:
            self.agreed += verdict.agreed
            self.undecided += not verdict.agreed

    def values(self) -> dict[str, float]:
        compared = self.agreed + self.undecided
        found: dict[str, float] = {"undecided": self.undecided}
        if compared:
            found["order_disagreement"] = self.undecided / compared
        if self.changed:
            found["repeat_disagreement"] = fmean(self.changed)
        return found

    def words(self, results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        said = []
        compared = self.agreed + self.undecided
        if compared:
            share = self.undecided / compared
            said.append(f"Of {compared:,} pairs, {self.undecided:,} ({share:.1%}) are undecided: the orders disagree.")
        wins = Counter(each["winner"] for each in results)
        if wins["first"] + wins["second"]:
            share = wins["first"] / (wins["first"] + wins["second"])
            said.append(f"Where it prefers one, it is the answer that stands first in {share:.1%}.")
        if self.same:
            said.append(f"{were(self.same, 'pair')} of the same answer twice: ties, and not asked about.")
        if self.changed:
            said.append(
                f"{were(len(self.changed), 'pair')} judged twice: {fmean(self.changed):.1%} came out differently."
            )
        return [("info", sentence) for sentence in said]


def _model_pairs(models: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Which models are compared: each other with the baseline, the baseline second; or each with each."""
    if len(models) < 2:
        raise InputError(
            f"There are answers of {models[0] if models else 'no model'} alone, and a judge of pairs compares two.",
            "Let another model answer the same prompts first.",
            field="responses",
        )
    if not baseline:
        return list(combinations(models, 2))
    if baseline not in models:
        raise InputError(
            f"There are no answers of “{baseline}”, with which the others are to be compared.",
            f"“Against” takes one of: {', '.join(models)}.",
            field="baseline",
        )
    return [(model, baseline) for model in models if model != baseline]


def _key(question: Question, a: str, b: str, order: str, time: int) -> str:
    return work_key(question.prompt_id, a, b, order, time)


def _same(question: Question, a: str, b: str) -> bool:
    return question.answers[a].strip() == question.answers[b].strip()
