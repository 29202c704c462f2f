"""What a respond run keeps of models' answers: how fast they were, and whether others may take them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from training.answer_cache import AnswerCache
from training.data.examples import SetPrompt
from training.errors import Stopped
from training.journal import Journal, Record, read_lines
from training.stages.respond import _answer, _Work
from training.worklog import WorkLog

PROMPTS = [SetPrompt(f"p{number}", [{"role": "user", "content": f"{number}?"}]) for number in range(3)]


class OneAtATime:
    """Answers so many prompts, then hears the wish to stop."""

    facts: Mapping[str, Any] = {"model": "m"}

    def __init__(self, device: str, count: int) -> None:
        self.where: Mapping[str, Any] = {"device": device}
        self._count = count

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def do(
        self, prompts: Mapping[str, SetPrompt], left: Sequence[str], begin: Callable[[Sequence[str]], None],
        stop: Callable[[], bool], go_on: Callable[[int], None],
    ) -> Iterator[dict[str, dict[str, Any]]]:  # fmt: skip
        for number, key in enumerate(left):
            if number == self._count:
                raise Stopped
            begin([key])
            yield {key: {"response": f"by {self.where['device']}", "ended": True, "tokens": 10}}


def attempt(folder: Path, answerer: OneAtATime) -> None:
    with WorkLog(folder / "work.jsonl") as log, closing(Journal(folder / "journal.jsonl", 1)) as journal:
        _answer("m", answerer, _Work(PROMPTS, ["m"], log, journal, lambda: False), folder, True)


@pytest.mark.parametrize(("devices", "kept"), [("cpu cpu cpu", 3), ("cpu cuda cpu", 0), ("cuda cpu cpu", 0)])
def test_other_runs_take_answers_only_where_all_attempts_answered_on_one_kind_of_device(
    tmp_path: Path, devices: str, kept: int
) -> None:
    *stopped, last = devices.split()
    for device in stopped:
        with pytest.raises(Stopped):
            attempt(tmp_path, OneAtATime(device, 1))
    attempt(tmp_path, OneAtATime(last, 3))
    for device in ("cpu", "cuda"):
        found = AnswerCache(tmp_path, {**OneAtATime.facts, "device": device}).read()
        assert len(found) == (kept if device == last else 0)


def test_the_time_before_a_model_begins_to_answer_says_nothing_of_its_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with WorkLog(tmp_path / "work.jsonl") as log, closing(Journal(tmp_path / "journal.jsonl", 1)) as journal:
        work = _Work(PROMPTS, ["m"], log, journal, lambda: False)
        clock[0] = 600.0  # it was downloaded
        work.keep(
            "m", {key: {"response": "a", "ended": True, "tokens": 10, "cached": True} for key in work.left("m")[:1]}
        )
        clock[0] = 660.0  # and loaded
        work.begin()
        for key in work.left("m"):
            clock[0] += 2.0
            work.keep("m", {key: {"response": "b", "ended": True, "tokens": 10}})
        work.measure()
    lines = read_lines(tmp_path / "journal.jsonl", 0).lines
    told = [line.body["values"] for line in lines if isinstance(line, Record) and line.kind == "metrics"]
    assert told[-1]["tokens_per_second"] == 5.0
