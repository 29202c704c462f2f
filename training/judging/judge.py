"""What a judge is to the stage: works with keys, done in any order and kept one by one, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

Begin = Callable[[Sequence[str]], None]
Stop = Callable[[], bool]


@dataclass
class Judged:
    """What works came to so far. `values`: numbers for the charts; `words`: sentences, each with its level."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    words: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.scores) + len(self.verdicts)


@dataclass(frozen=True)
class Shown:
    """A work for the run's page: what was asked, and what the judge said."""

    asked: str
    said: str


class Judge(Protocol):
    """One way of judging. A work's key is a text, its result is JSON: both stand in the run's log of works."""

    noun: str  # what a work is
    costs: bool  # a work is paid for
    identity: dict[str, str]  # what the results depend on beside the answers

    def works(self) -> list[str]:
        """The keys of all works, in the order in which they are best done."""

    def do(self, keys: Sequence[str], begin: Begin, stop: Stop) -> Iterator[dict[str, Any]]:
        """Do works, `begin` some, and give their results as they come. Raises TrainingError, Stopped."""

    def conclude(self, done: Mapping[str, Any]) -> Judged:
        """What the results of the works that are done come to."""

    def show(self, key: str, result: Any) -> Shown:
        """A work for the run's page."""


def work_key(*parts: str | int) -> str:
    """A key of its parts, whatever they hold."""
    return orjson.dumps(parts).decode()


def parts_of(key: str) -> list[Any]:
    parts: list[Any] = orjson.loads(key)
    return parts
