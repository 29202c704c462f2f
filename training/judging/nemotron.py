"""A reward model of Nemotron's form behind an endpoint: a chat in, “reward:-3.28125” out. No torch here.

As NVIDIA documents nvidia/llama-3.1-nemotron-70b-reward: the last message is the assistant's answer, and the chat
completion's content is its reward.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from training.data.examples import Message
from training.endpoint import Endpoint, Request
from training.judging.answers import Answers
from training.judging.judge import Begin, Judged, Shown, Stop, parts_of
from training.judging.scores import score_rows, score_works
from training.words import were

REWARD = re.compile(r"\s*(?:reward\s*:)?\s*([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*", re.IGNORECASE)


def read_reward(text: str) -> float | None:
    """The number, or None where the text is something else."""
    found = REWARD.fullmatch(text)
    value = float(found[1]) if found else math.nan
    return value if math.isfinite(value) else None


class RewardEndpoint:
    """A reward model behind an endpoint (training.judging.judge.Judge)."""

    noun, costs = "request", True

    def __init__(self, answers: Answers, endpoint: Endpoint, twice: Collection[str], name: str) -> None:
        self._answers, self._endpoint, self._twice, self._name = answers, endpoint, twice, name
        self._questions = {question.prompt_id: question for question in answers.questions}
        for question in answers.questions:
            answers.asked(question)
        self.identity: dict[str, str] = {"model": endpoint.model}

    def works(self) -> list[str]:
        return score_works(self._answers, self._twice)

    def do(self, keys: Sequence[str], begin: Begin, stop: Stop) -> Iterator[dict[str, Any]]:
        for key, reply in self._endpoint.ask(map(self._request, keys), stop, lambda key: begin([key])):
            yield {key: {"score": read_reward(reply.text), "words": reply.text[:120]}}

    def _request(self, key: str) -> Request:
        prompt_id, model, _ = parts_of(key)
        question = self._questions[prompt_id]
        answer = Message(role="assistant", content=question.answers[model])
        return Request(key, [*self._answers.asked(question), answer])

    def conclude(self, done: Mapping[str, Any]) -> Judged:
        judged = score_rows(self._answers, {key: each["score"] for key, each in done.items()}, self._name, self._twice)
        unread = [each["words"] for each in done.values() if each["score"] is None]
        judged.values["unparsable"] = len(unread)
        if unread:
            told = f"{were(len(unread), 'request')} answered without a reward, for example with “{unread[0]}”."
            judged.words.append(("warning", told))
        return judged

    def show(self, key: str, result: Any) -> Shown:
        prompt_id, model, _ = parts_of(key)
        question = self._questions[prompt_id]
        asked = self._answers.asked(question)[-1]["content"]
        return Shown(asked, f"{model}, {result['words']}: {question.answers[model]}")
