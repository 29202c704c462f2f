"""What an augment run has to do, in many small works, and what is done of it. No torch here.

Works: ["write", prompt, n] for a new prompt, ["answer", prompt, n] for an answer, and the judge's own. Each batch is
kept whole or not at all, so that a kill repeats only what was in flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import orjson

from training.errors import InputError
from training.failpoints import failpoint
from training.journal import Journal
from training.throttle import Throttle
from training.worklog import WorkLog

SECONDS = 5.0  # between two points of the charts
CHANGED = "Retry the run: it begins from nothing. What was made before would not fit the rest."


def work_key(kind: str, prompt_id: str, number: int) -> str:
    """The key of a new prompt or an answer, `number` from 1; unlike any of a judge's."""
    return f"{kind} {orjson.dumps([prompt_id, number]).decode()}"


class Works:
    """The run's log of works, and its journal."""

    def __init__(self, log: WorkLog, journal: Journal, stop: Callable[[], bool]) -> None:
        self.log, self.journal, self.stop = log, journal, stop
        self._bar, self._charts = Throttle(), Throttle(SECONDS)
        self._charts.ready()
        self._began, self._tokens = time.monotonic(), 0
        self._done = sum(not key.startswith("=") for key in log.done)
        self.values: dict[str, float] = {}  # what is known so far, for the charts

    def begin(self, phase: str, keys: Sequence[str], noun: str, paid: bool) -> list[str]:
        """Tell how far a phase is. Returns what is left of it. `noun`: a work, in the plural."""
        left = [key for key in keys if key not in self.log.done]
        again = sum(key in self.log.interrupted for key in left)
        if again:
            twice = ", and may be paid for twice" if paid else ""
            self.journal.log(
                f"{again:,} {noun} were under way when the run was interrupted: they are made again{twice}.", "warning"
            )
        self.journal.status(phase)
        self.journal.progress(phase, len(keys) - len(left), len(keys), noun)
        return left

    def keep(self, phase: str, results: Mapping[str, Any], keys: Sequence[str], noun: str) -> None:
        """Keep results of a phase, all or none of them, and tell how far it is."""
        fresh = {key: result for key, result in results.items() if key not in self.log.done}
        if not fresh:
            return
        failpoint(f"before_{phase}_kept")
        self.log.finish(fresh)
        failpoint(f"after_{phase}_kept")
        self._done += len(fresh)
        self._tokens += sum(each.get("tokens") or 0 for each in fresh.values() if isinstance(each, dict))
        done = sum(key in self.log.done for key in keys) if self._bar.ready() else None
        if done is not None:
            self.journal.progress(phase, done, len(keys), noun)
        if self._charts.ready():
            self.measure()

    def end(self, phase: str, keys: Sequence[str], noun: str, **values: float) -> None:
        """A phase is done. `values`: what is known now."""
        self.journal.progress(phase, len(keys), len(keys), noun)
        self.values |= values
        self.measure()

    def measure(self, **values: float) -> None:
        """A point of the charts, at the number of works done so far."""
        seconds = max(1e-9, time.monotonic() - self._began)
        speed = {"tokens_per_second": self._tokens / seconds} if self._tokens else {}
        self.journal.metrics(self._done, **self.values, **speed, **values, repeated=float(self.log.repeated))

    @property
    def done(self) -> int:
        return self._done

    def same(self, name: str, facts: Mapping[str, Any], what: str) -> None:
        """Keep what results depend on, or hold it against what an earlier attempt kept. Raises InputError."""
        key = f"={name}"
        before = self.log.done.get(key)
        if before is None:
            self.log.finish({key: dict(facts)})
        elif before != dict(facts):
            changed = ", ".join(each for each in facts if before.get(each) != facts[each])
            raise InputError(f"Since this run began, {what} changed ({changed}).", CHANGED)


def about_answers(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What answers are like: {"response", "ended", "tokens"} each."""
    if not answers:
        return {}
    lengths = [each["tokens"] for each in answers if each["tokens"] is not None]
    length = {"answer_length": fmean(lengths)} if lengths else {}
    return {
        **length,
        "answers_ended": fmean(bool(each["ended"]) for each in answers),
        "answers_empty": fmean(not each["response"].strip() for each in answers),
    }
