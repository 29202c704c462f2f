"""The answers that a judge run is given, by prompt and model. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from training.data.examples import Message
from training.data.lines import RowError, numbered_lines, parse_row
from training.data.rows import as_prompt_messages
from training.errors import DataError


@dataclass(slots=True)
class Question:
    """A prompt, and what the models answered, by model. `messages`: None where no row says what was asked."""

    prompt_id: str
    messages: list[Message] | None = None
    reference: str | None = None
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """`questions` in the order of the file, `models` in the order in which they first answer."""

    questions: list[Question]
    models: list[str]

    def each(self) -> Iterator[tuple[Question, str]]:
        """Every answer, prompt by prompt: its question, and the model that gave it."""
        for question in self.questions:
            for model in self.models:
                if model in question.answers:
                    yield question, model

    def asked(self, question: Question) -> list[Message]:
        """A question's messages. Raises DataError where they are not known."""
        if question.messages is None:
            raise DataError(
                f"The answers to the prompt “{question.prompt_id}” do not say what was asked.",
                "Import them with their prompts, or judge them with the checker.",
            )
        return question.messages


def read_answers(path: Path) -> Answers:
    """Read rows of answers. Raises DataError, which names the line."""
    questions: dict[str, Question] = {}
    models: dict[str, None] = {}
    for number, line in numbered_lines(path):
        try:
            _take(parse_row(line), questions, models)
        except RowError as error:
            raise DataError(f"Line {number:,} of {path.name}: {error.message}", error.hint) from None
    return Answers(list(questions.values()), list(models))


def _take(row: dict[str, Any], questions: dict[str, Question], models: dict[str, None]) -> None:
    prompt_id, model, text = (_text(row, name) for name in ("prompt_id", "model", "response"))
    question = questions.setdefault(prompt_id, Question(prompt_id))
    if model in question.answers:
        raise RowError(
            f"“{model[:60]}” has an answer to the prompt “{prompt_id[:60]}” already.", "Leave one of the two out."
        )
    question.answers[model] = text
    models[model] = None
    if question.messages is None and row.get("prompt") is not None:
        question.messages = as_prompt_messages(row["prompt"])
    if question.reference is None and row.get("reference") is not None:
        question.reference = _text(row, "reference")


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if type(value) is int and name == "prompt_id":
        return str(value)
    if type(value) is not str:
        raise RowError(f"“{name}” is {'missing' if value is None else 'no text'}.", "Write a text in quotes.")
    return value


def judged_twice(answers: Answers, fraction: float, seed: int) -> frozenset[str]:
    """The ids of the prompts that are judged a second time: this share of them, one at least where it is not 0."""
    if not fraction:
        return frozenset()
    ids = [question.prompt_id for question in answers.questions]
    count = min(len(ids), max(1, math.floor(fraction * len(ids) + 0.5)))
    return frozenset(Random(seed).sample(ids, count))
