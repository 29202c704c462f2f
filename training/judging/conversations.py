"""A prompt and an answer as the tokens that a reward model reads. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.encoding import chat_template, plain_backend
from training.data.examples import Message
from training.data.lines import RowError
from training.judging.answers import Answers
from training.words import were


@dataclass
class Conversations:
    """Tokens by (prompt id, model); what of them was lost, and which could not be made."""

    ids: dict[tuple[str, str], NDArray[np.int32]] = field(default_factory=dict)
    cut: int = 0  # answers that were cut at their end
    tokens_cut: int = 0
    too_long: int = 0  # prompts, with an answer each, that leave no room for a word of it
    refused: int = 0  # that the chat template does not take
    why: str = ""  # of the first refused

    @property
    def words(self) -> list[tuple[str, str]]:
        """What was lost, in sentences."""
        said = []
        if self.cut:
            said.append(f"{were(self.cut, 'answer')} too long and cut at the end: {self.tokens_cut:,} tokens lost.")
        if self.too_long:
            said.append(f"{were(self.too_long, 'answer')} not scored: the prompt leaves no room.")
        if self.refused:
            said.append(f"{were(self.refused, 'answer')} not scored: {self.why}")
        return [("warning", sentence) for sentence in said]


def conversations(answers: Answers, tokenizer: Any, most: int, bare_end: bool) -> Conversations:
    """All answers behind their prompts, in the model's own chat template.

    `most`: tokens that the model reads; a longer answer loses its end, but not the end of the turn, where the model
    looks. `bare_end`: white space that the template writes behind the last turn is left off.
    """
    encoder = _Encoder(tokenizer, most, bare_end)
    made = Conversations()
    for question, model in answers.each():
        try:
            ids = encoder.encode(answers.asked(question), question.answers[model], made)
        except RowError as error:
            made.refused += 1
            made.why = made.why or error.message
            continue
        if ids is not None:
            made.ids[question.prompt_id, model] = np.array(ids, np.int32)
    return made


class _Encoder:
    def __init__(self, tokenizer: Any, most: int, bare_end: bool) -> None:
        self._backend, self._template = plain_backend(tokenizer), chat_template(tokenizer)
        self._most, self._bare_end = most, bare_end
        self._turn_end = self._template.turn_end()

    def encode(self, prompt: list[Message], answer: str, made: Conversations) -> list[int] | None:
        """Raises RowError where the template refuses; None where there is no room, which is counted."""
        text = self._template.render([*prompt, Message(role="assistant", content=answer)])
        text = text.rstrip() if self._bare_end else text
        ids = self._ids(text)
        if len(ids) <= self._most:
            return ids
        end = self._end(text)
        room = self._most - len(end)
        if len(self._ids(self._template.render(prompt, add_generation_prompt=True))) >= room:
            made.too_long += 1
            return None
        made.cut += 1
        made.tokens_cut += len(ids) - self._most
        return ids[:room] + end

    def _end(self, text: str) -> list[int]:
        """The tokens that end the last turn."""
        words = text.rstrip()
        if not self._turn_end or not words.endswith(self._turn_end):
            return []
        return self._ids(text[len(words) - len(self._turn_end) :])

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids


def most_tokens(config: Any, tokenizer: Any) -> int:
    """How many tokens a model reads, as its config or its tokenizer says."""
    said = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    return int(min(each for each in (*said, 2**20) if each and each > 0))
