"""What a data set's row is to training: a chat, a text, a pair of answers, or a prompt to answer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

Flaw = Literal["equal", "empty", "prompts differ"]
"""Why a pair teaches nothing: chosen and rejected say the same; one of them says nothing; they answer other prompts."""

FLAWS: dict[Flaw, str] = {
    "equal": "chosen and rejected say the same",
    "empty": "an answer is empty",
    "prompts differ": "chosen and rejected answer different prompts",
}
"""Each flaw in words."""


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One chat or one text to train on; exactly one of the two is set."""

    messages: list[Message] | None = None
    text: str | None = None

    def contents(self) -> list[str]:
        """All that is said in it."""
        return [self.text or ""] if self.messages is None else [message["content"] for message in self.messages]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two answers to it, `chosen` the better one.

    The answers do not repeat the prompt, unless they are whole chats that begin with other prompts (`pair_flaw`).
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]

    def contents(self) -> list[str]:
        """All that is said in it, the prompt once."""
        return [message["content"] for part in (self.prompt, self.chosen, self.rejected) for message in part]


@dataclass(frozen=True, slots=True)
class SetPrompt:
    """A prompt of a set that models answer. `reference`: a right answer, where the set has one."""

    prompt_id: str
    messages: list[Message]
    category: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A row of any kind that prompts are drawn from: its prompt, and all that it says. `kind`: as training.data.rows has it."""

    kind: str
    prompt: SetPrompt
    row: Example | Pair


def pair_flaw(pair: Pair) -> Flaw | None:
    """Why there is nothing to learn from a pair, or None where there is."""
    answers = pair.chosen, pair.rejected
    if any(answer[0]["role"] != "assistant" for answer in answers):
        return "prompts differ"
    if not all(map(_says_something, answers)):
        return "empty"
    chosen, rejected = ([(turn["role"], turn["content"].strip()) for turn in answer] for answer in answers)
    return "equal" if chosen == rejected else None


def _says_something(answer: list[Message]) -> bool:
    return any(turn["role"] == "assistant" and turn["content"].strip() for turn in answer)
