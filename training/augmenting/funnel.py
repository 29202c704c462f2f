"""Which pairs are made of what was written, answered and judged, and why the rest is dropped. Pure; no torch here.

Of a prompt's answers, those that can be used say something, ended by themselves and were judged. The best of them
against the worst is its pair: no threshold changes which two these are. Then come the filters, in the order of
REASONS; the first that holds is the reason. So a threshold that is loosened never keeps fewer pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from training.config import AugmentConfig
from training.data.examples import Message

Reason = Literal[
    "empty", "truncated", "too few answers", "repetitive", "wrong script", "leaked", "near-duplicate", "alike", "margin"
]
"""Why a prompt gives no pair."""
REASONS: tuple[Reason, ...] = get_args(Reason)

Fate = Literal[
    "chosen", "rejected", "empty", "truncated", "not judged", "no other answer", "not best or worst",
    "repetitive", "wrong script", "leaked", "near-duplicate", "alike", "margin",
]  # fmt: skip
"""What became of an answer. A reason of its prompt's falls on the best and on the worst."""
FATES: tuple[Fate, ...] = get_args(Fate)

THRESHOLDS: dict[Reason, str] = {
    "repetitive": "max_repetition",
    "wrong script": "same_script",
    "leaked": "max_leak_similarity",
    "near-duplicate": "max_prompt_similarity",
    "alike": "max_answer_similarity",
    "margin": "min_margin",
}
"""The setting that decides on each reason; of the others, none does."""


@dataclass(frozen=True)
class Thresholds:
    """The settings of training/config/augment.py under “Filters”."""

    max_repetition: float
    same_script: bool
    max_leak_similarity: float
    max_prompt_similarity: float
    max_answer_similarity: float
    min_margin: float

    @classmethod
    def of(cls, config: AugmentConfig) -> Thresholds:
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


LOOSEST = Thresholds(
    max_repetition=1.0, same_script=False, max_leak_similarity=1.0, max_prompt_similarity=1.0,
    max_answer_similarity=1.0, min_margin=0.0,
)  # fmt: skip
"""What these drop, no threshold can save."""


@dataclass(frozen=True)
class Candidate:
    """One answer to a prompt, with its measures."""

    text: str
    ended: bool  # it stopped by itself; it was not cut
    tokens: int | None = None
    score: float | None = None  # the judge's: the higher the better. None: it was not judged
    repetition: float = 0.0  # share of its four-word runs that it has said before
    same_script: bool = True  # it is in its prompt's script, or in one that the prompt asks for

    @property
    def usable(self) -> bool:
        return bool(self.text.strip()) and self.ended and self.score is not None


@dataclass(frozen=True)
class NewPrompt:
    """A prompt and its answers. Similarities are cosines, 1 where two texts are equal; None where there is no other.

    A prompt that was drawn and not written is held against nothing: its data set is what it comes from.
    """

    prompt_id: str
    messages: list[Message]
    written_from: str | None = None  # the id of the prompt that it was written from; None: it is one of the data's
    ended: bool = True
    leaked: bool = False  # it asks what is held out (training/data/leaks.py), whatever the threshold
    leak_similarity: float | None = None  # to the nearest held-out prompt
    leak_nearest: str | None = None  # that one's id
    data_similarity: float | None = None  # to the nearest prompt of the data
    data_nearest: str | None = None  # that one's text
    earlier_similarity: float | None = None  # to the nearest of the prompts that were written before it
    earlier_nearest: str | None = None  # that one's id
    answer_similarity: float | None = None  # of its best and its worst answer
    candidates: tuple[Candidate, ...] = ()

    @property
    def text(self) -> str:
        return self.messages[-1]["content"]

    @property
    def source(self) -> str:
        """Tells prompts apart that were drawn: the ids of those that were written from one begin alike."""
        return self.prompt_id.partition(".")[0]

    @property
    def similarity(self) -> float | None:
        """To the nearest prompt of the data, or new one before it."""
        known = [each for each in (self.data_similarity, self.earlier_similarity) if each is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class Sifted:
    """A prompt with what became of it. `reason`: None where its pair is kept; `fates`: of its answers, in order."""

    prompt: NewPrompt
    reason: Reason | None
    best: int | None
    worst: int | None
    fates: tuple[Fate, ...]

    @property
    def margin(self) -> float | None:
        return None if self.best is None or self.worst is None else margin(self.prompt, self.best, self.worst)


def sift(prompts: Iterable[NewPrompt], thresholds: Thresholds) -> list[Sifted]:
    """Each prompt with its reason, and each of its answers with exactly one fate."""
    return [_sift(prompt, thresholds) for prompt in prompts]


def _sift(prompt: NewPrompt, thresholds: Thresholds) -> Sifted:
    pair = extremes(prompt.candidates)
    best, worst = pair or (None, None)
    reason = reason_of(prompt, thresholds)
    fates = tuple(_fate(prompt, index, pair, reason) for index in range(len(prompt.candidates)))
    return Sifted(prompt, reason, best, worst, fates)


def extremes(candidates: Sequence[Candidate]) -> tuple[int, int] | None:
    """The places of the best and of the worst answer that can be used; None where there are not two.

    Of equal scores the first is the best and the last the worst.
    """
    usable = [(each.score, index) for index, each in enumerate(candidates) if each.usable]
    if len(usable) < 2:
        return None
    best = max(usable, key=lambda each: (each[0], -each[1]))
    worst = min(usable, key=lambda each: (each[0], -each[1]))
    return best[1], worst[1]


def margin(prompt: NewPrompt, best: int, worst: int) -> float:
    """By how much the judge prefers the best to the worst."""
    high, low = prompt.candidates[best].score, prompt.candidates[worst].score
    assert high is not None and low is not None
    return high - low


def reason_of(prompt: NewPrompt, thresholds: Thresholds) -> Reason | None:
    """Why a prompt gives no pair: the first filter that holds; None where it gives one."""
    if not prompt.text.strip():
        return "empty"
    if not prompt.ended:
        return "truncated"
    pair = extremes(prompt.candidates)
    if pair is None:  # of a prompt that no threshold could save, nobody asked for answers
        return (_of_prompt(prompt, thresholds) if not prompt.candidates else None) or "too few answers"
    best, worst = (prompt.candidates[place] for place in pair)
    if max(best.repetition, worst.repetition) > thresholds.max_repetition:
        return "repetitive"
    if thresholds.same_script and not (best.same_script and worst.same_script):
        return "wrong script"
    if found := _of_prompt(prompt, thresholds):
        return found
    if prompt.answer_similarity is not None and prompt.answer_similarity >= thresholds.max_answer_similarity:
        return "alike"
    apart = margin(prompt, *pair)
    return "margin" if apart <= 0 or apart < thresholds.min_margin else None


def is_hopeless(prompt: NewPrompt) -> bool:
    """Whether no threshold could save a prompt that nobody has answered yet."""
    return not prompt.text.strip() or not prompt.ended or _of_prompt(prompt, LOOSEST) is not None


def _of_prompt(prompt: NewPrompt, thresholds: Thresholds) -> Reason | None:
    """What of the filters looks at the prompt alone."""
    if prompt.leaked or (prompt.leak_similarity or 0.0) >= thresholds.max_leak_similarity:
        return "leaked"
    return "near-duplicate" if (prompt.similarity or 0.0) >= thresholds.max_prompt_similarity else None


def _fate(prompt: NewPrompt, index: int, pair: tuple[int, int] | None, reason: Reason | None) -> Fate:
    candidate = prompt.candidates[index]
    if not candidate.text.strip():
        return "empty"
    if not candidate.ended:
        return "truncated"
    if candidate.score is None:
        return "not judged"
    if pair is None:
        return "no other answer"
    if index not in pair:
        return "not best or worst"
    if reason is None:
        return "chosen" if index == pair[0] else "rejected"
    assert reason in FATES, "with a pair, the reason is a filter's"
    return reason


def pair_row(sifted: Sifted) -> dict[str, Any]:
    """A kept prompt's row of a data file of preferences."""
    assert sifted.reason is None and sifted.best is not None and sifted.worst is not None
    prompt = sifted.prompt
    best, worst = prompt.candidates[sifted.best], prompt.candidates[sifted.worst]
    row = {
        "prompt": prompt.messages, "chosen": best.text, "rejected": worst.text,
        "score_chosen": best.score, "score_rejected": worst.score,
    }  # fmt: skip
    return row if prompt.written_from is None else {**row, "written_from": prompt.written_from}
