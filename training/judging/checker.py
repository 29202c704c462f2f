"""The checker: a prompt's own reference decides whether an answer is right. No torch here.

What it does: exact texts, last numbers as in GSM8K, regular expressions with a time limit.
What it does not: judge how an answer is written, or answers to prompts without a reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import regex

from training.errors import DataError, InputError, Stopped
from training.judging.answers import Answers, Question
from training.judging.judge import Begin, Judged, Shown, Stop, parts_of
from training.judging.scores import score_key, score_rows
from training.words import were

Check = Literal["exact", "number", "regex"]

NUMBER = re.compile(r"(?:(?<![\w.)])[-−])?(?:\d+(?:\.\d+)?|(?<!\d)\.\d+)")
SECONDS = 1.0  # that one search may take
AT_ONCE = 256  # answers between two lines of the log


def is_right(answer: str, reference: str, check: Check) -> bool | None:
    """Whether an answer is what the reference says; None where it cannot be decided.

    exact: the same text, but for case and spaces at its ends. number: the same last number, the reference's behind its
    last ####. regex: found somewhere in the answer; None where the search takes too long. Raises regex.error.
    """
    if check == "exact":
        return answer.strip().casefold() == reference.strip().casefold()
    if check == "number":
        right = last_number(reference.rpartition("####")[2])
        return None if right is None else last_number(answer) == right
    try:
        return regex.search(reference, answer, timeout=SECONDS) is not None
    except TimeoutError:
        return None


def last_number(text: str) -> Decimal | None:
    """The last number of a text, commas between digits and dollar signs left out; None where there is none."""
    plain = re.sub(r"(?<=\d),(?=\d)", "", text).replace("$", "")
    found = NUMBER.findall(plain)
    return Decimal(found[-1].replace("−", "-")) if found else None


class Checker:
    """A judge that scores 1 for right and 0 for wrong (training.judging.judge.Judge)."""

    noun, costs = "answer", False

    def __init__(self, answers: Answers, check: Check, name: str) -> None:
        """Raises InputError where no prompt has a reference, DataError where one is no regular expression."""
        self._answers, self._check, self._name = answers, check, name
        self.identity: dict[str, str] = {"check": check}
        self._checked = {each.prompt_id: each for each in answers.questions if each.reference is not None}
        if not self._checked:
            raise InputError(
                "None of these prompts has a reference, so there is nothing to check against.",
                "Answer a prompt set whose rows have a “reference”, or take another judge.",
                field="judge",
            )
        if check == "regex":
            for question in self._checked.values():
                _compile(question)

    def works(self) -> list[str]:
        known = self._checked
        return [score_key(each.prompt_id, model) for each, model in self._answers.each() if each.prompt_id in known]

    def do(self, keys: Sequence[str], begin: Begin, stop: Stop) -> Iterator[dict[str, Any]]:
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            begin(some)
            found = {}
            for key in some:
                if stop():
                    raise Stopped
                found[key] = self._score(key)
            yield found

    def _score(self, key: str) -> float | None:
        prompt_id, model, _ = parts_of(key)
        question = self._checked[prompt_id]
        right = is_right(question.answers[model], question.reference or "", self._check)
        return None if right is None else float(right)

    def conclude(self, done: Mapping[str, Any]) -> Judged:
        judged = score_rows(self._answers, done, self._name)
        without = len(self._answers.questions) - len(self._checked)
        if without:
            judged.words.append(("info", f"{were(without, 'prompt')} not checked, for want of a reference."))
        undecided = sum(result is None for result in done.values())
        if undecided:
            why = "a search took too long" if self._check == "regex" else "the reference holds no number"
            judged.words.append(("warning", f"{were(undecided, 'answer')} not scored: {why}."))
        judged.values["unparsable"] = undecided
        return judged

    def show(self, key: str, result: Any) -> Shown:
        prompt_id, model, _ = parts_of(key)
        question = self._checked[prompt_id]
        verdict = {None: "could not be checked", 1.0: "right", 0.0: "wrong"}[result]
        return Shown(f"Reference: {question.reference}", f"{model}, {verdict}: {question.answers[model]}")


def _compile(question: Question) -> None:
    try:
        regex.compile(question.reference or "")
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise DataError(
            f"The reference of the prompt “{question.prompt_id}” is no regular expression: {error}.",
            "Correct it in the prompt set, or check otherwise.",
        ) from None
