"""A run's curves: from metric events to a few thousand points a curve. The functions below `read` are pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import orjson
from sqlmodel import Session, col, select
from tsdownsample import MinMaxLTTBDownsampler

from app.models import Event, Run

POINTS = 2000  # that a curve is thinned to
TOKENS = "tokens"  # the metric that counts tokens so far: an x-axis


class HasStep(Protocol):
    """What an attempt wrote at a step."""

    @property
    def attempt(self) -> int: ...
    @property
    def step(self) -> int: ...


Written = TypeVar("Written", bound=HasStep)


@dataclass(frozen=True)
class Metrics:
    """One metrics event: its attempt, time, step, and values (None where not finite)."""

    attempt: int
    time: float
    step: int
    values: dict[str, float | None]


@dataclass(frozen=True)
class Attempt:
    """When an attempt wrote its first point, and how many seconds all earlier ones had taken by then."""

    attempt: int
    step: int
    began: float
    offset: float


@dataclass
class Curve:
    """Points by step: parallel lists. `seconds` counts training alone, without the gaps between attempts."""

    step: list[int] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens: list[float | None] = field(default_factory=list)


def read(session: Session, run_id: int) -> tuple[list[Metrics], int]:
    """All metric events of a run, and the number of the last event: where a live stream goes on.

    Both in one read transaction on SQLite; on Postgres the number is read first, so nothing is left out.
    """
    cursor = session.exec(select(Run.last_event).where(Run.id == run_id)).one()
    statement = (
        select(Event.attempt, Event.time, Event.step, Event.body)
        .where(Event.run_id == run_id, Event.kind == "metrics", Event.number <= cursor)
        .order_by(col(Event.number))
    )
    return [Metrics(a, t, step or 0, _values(body)) for a, t, step, body in session.exec(statement)], cursor


def _values(body: str) -> dict[str, float | None]:
    return {
        key: value if isinstance(value, (int, float)) and math.isfinite(value) else None
        for key, value in orjson.loads(body).items()
    }


def standing(metrics: Iterable[Written]) -> list[Written]:
    """What counts: an attempt replaces all that earlier ones wrote behind its own first step.

    Of that step itself, which a checkpoint may have kept, each value stands until the attempt writes it again.
    """
    kept: list[Written] = []
    attempt = None
    for each in metrics:
        if each.attempt != attempt:
            attempt = each.attempt
            while kept and kept[-1].step > each.step:
                kept.pop()
        kept.append(each)
    return kept


def attempts(metrics: Sequence[Metrics]) -> list[Attempt]:
    """Every attempt that wrote a point, in order."""
    found: list[Attempt] = []
    latest, offset = 0.0, 0.0
    for each in metrics:
        if not found or found[-1].attempt != each.attempt:
            offset += latest - found[-1].began if found else 0.0
            found.append(Attempt(each.attempt, each.step, each.time, offset))
        latest = each.time
    return found


def curves(metrics: Sequence[Metrics], keys: Sequence[str] = ()) -> dict[str, Curve]:
    """The curves of some keys, or of all. Where a step has a value twice, the later one counts."""
    starts = {each.attempt: each for each in attempts(metrics)}
    made: dict[str, Curve] = {}
    tokens: float | None = None
    for each in standing(metrics):
        start = starts[each.attempt]
        tokens = each.values.get(TOKENS, tokens)
        for key, value in each.values.items():
            if keys and key not in keys:
                continue
            curve = made.setdefault(key, Curve())
            if curve.step and curve.step[-1] == each.step:
                for points in (curve.step, curve.value, curve.seconds, curve.tokens):
                    points.pop()
            curve.step.append(each.step)
            curve.value.append(value)
            curve.seconds.append(round(each.time - start.began + start.offset, 3))
            curve.tokens.append(tokens)
    return made


def thin(curve: Curve, points: int = POINTS) -> Curve:
    """At most about `points` of a curve, chosen so that it looks the same (MinMaxLTTB); gaps stay gaps."""
    if len(curve.step) <= points:
        return curve
    value = np.array([math.nan if v is None else v for v in curve.value], dtype=np.float64)
    finite = np.flatnonzero(np.isfinite(value))
    chosen = finite
    if len(finite) > points:
        steps = np.array(curve.step, dtype=np.float64)[finite]
        chosen = finite[MinMaxLTTBDownsampler().downsample(steps, np.ascontiguousarray(value[finite]), n_out=points)]
    gaps = np.flatnonzero(~np.isfinite(value))[:points]
    keep = np.union1d(chosen, gaps).tolist()
    return Curve(
        [curve.step[i] for i in keep],
        [curve.value[i] for i in keep],
        [curve.seconds[i] for i in keep],
        [curve.tokens[i] for i in keep],
    )


def as_json(metrics: Sequence[Metrics], cursor: int, keys: Sequence[str] = ()) -> dict[str, Any]:
    """What a page loads before it goes on by events."""
    return {
        "cursor": cursor,
        "attempts": [vars(each) for each in attempts(metrics)],
        "series": {key: vars(thin(curve)) for key, curve in curves(metrics, keys).items()},
    }
