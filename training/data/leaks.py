"""Held out means held out: what of a run's data asks what the experiment has held out of all training.

In the data set that the held-out prompts come from, rows with them are taken out and counted. In any other they
refuse the run, which names them: who put them there must know. A row has a held-out prompt where
- its prompt (a chat's beginning up to its first answer, a pair's prompt) is equal (training/data/normal.py), or
- a later question of it is equal to a held-out prompt of one question, or it has a held-out talk's beginning, or
- its prompt asks the same in other words (training/data/likeness.py), or
- it is a plain text in which a held-out prompt of eight words or more stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.data.differences import Asked
from training.data.examples import Example, Message, Pair, SetPrompt
from training.data.normal import normal, turns

SHORTEST = 8  # words of a held-out prompt that is looked for inside of plain texts

Row = Example | Pair
Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Question:
    """What a row or a prompt asks: its messages up to the answer, those of the system apart."""

    turns: Turns  # roles and normal texts
    system: str
    text: str  # as written

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Question:
        said = turns(messages)
        system = " ".join(text for role, text in said if role == "system")
        text = "\n".join(message["content"] for message in messages if message["role"] != "system")
        return cls(tuple(turn for turn in said if turn[0] != "system"), system, text)

    def fits(self, system: str) -> bool:
        """Whether it may be the same under this system prompt: two different ones make two questions."""
        return not self.system or not system or self.system == system


def question_of(row: Row) -> Question:
    """Of a chat up to its first answer, of a pair all that both answers reply to."""
    if isinstance(row, Pair):
        return Question.of(row.prompt)
    messages = row.messages or []
    first = next((index for index, message in enumerate(messages) if message["role"] == "assistant"), None)
    return Question.of(messages[:first])


class Held:
    """The held-out prompts, to be looked up by what a row asks."""

    def __init__(self, prompts: Sequence[SetPrompt]) -> None:
        self.prompts = prompts
        self.questions = [Question.of(prompt.messages) for prompt in prompts]
        self.asked = [Asked(question.text) for question in self.questions]
        self._by_turns: dict[Turns, list[int]] = defaultdict(list)
        self._by_words: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
        for index, question in enumerate(self.questions):
            self._by_turns[question.turns].append(index)
            words = " ".join(text for _, text in question.turns).split()
            if len(words) >= SHORTEST:
                self._by_words[tuple(words[:2])].append((index, " ".join(words)))
        self._talks = {question.turns[0] for question in self.questions if len(question.turns) > 1}

    def equal(self, row: Row, question: Question) -> int | None:
        """The held-out prompt that a row has, None where it has none."""
        if isinstance(row, Example) and row.messages is None:
            return self._inside(row.text or "")
        for said in filter(None, (question.turns, *self._later(row, question))):
            for index in self._by_turns.get(said, ()):
                if self.questions[index].fits(question.system):
                    return index
        return None

    def _later(self, row: Row, question: Question) -> Iterator[Turns]:
        """Each question of a row by itself; and its beginnings, where one may be that of a held-out talk."""
        talk = _talk(row)
        asked = [message["content"] for message in talk if message["role"] == "user"]
        if len(asked) > 1 or len(question.turns) > 1:
            for content in asked:
                yield (("user", normal(content)),)
        if question.turns and question.turns[0] in self._talks:
            said = [turn for turn in turns(talk) if turn[0] != "system"]
            for end in range(2, len(said)):
                if said[end][0] == "assistant":
                    yield tuple(said[:end])

    def _inside(self, text: str) -> int | None:
        words = normal(text).split()
        for place, two in enumerate(pairwise(words)):
            for index, sought in self._by_words.get(two, ()):
                if " ".join(words[place : place + sought.count(" ") + 1]) == sought:
                    return index
        return None


def _talk(row: Row) -> list[Message]:
    if isinstance(row, Pair):
        answers = [message for side in (row.chosen, row.rejected) if len(side) > 1 for message in side]
        return [*row.prompt, *answers]
    return row.messages or []
