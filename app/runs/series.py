"""A run's curves: from metric events to a few thousand points a curve. The functions below `read` are pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from sqlalchemy import ColumnElement, func, or_
from sqlmodel import Session, select
from tsdownsample import MinMaxLTTBDownsampler

from app.models import Run, metadata

Array = npt.NDArray[Any]

POINTS = 2000  # that a curve is thinned to
NUMBERS = frozenset({int, float})  # what JSON has; it has no NaN, which is written as a text
EDGE = 4000  # latest events that are never left out
GAP: Any = object()  # where a record does not have a metric
TOKENS = "tokens"  # the metric that counts tokens so far: an x-axis


class HasStep(Protocol):
    """What an attempt wrote at a step."""

    @property
    def attempt(self) -> int: ...
    @property
    def step(self) -> int: ...


Written = TypeVar("Written", bound=HasStep)


class Metrics(NamedTuple):
    """One metrics event: its attempt, time, step, and values (None where not finite). There may be 100,000 of them."""

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


def read(session: Session, run_id: int, most: int | None = None) -> tuple[list[Metrics], int]:
    """All metric events of a run, and the number of the last event: where a live stream goes on. Of a run with more
    than `most` events its steps are thinned to about so many.

    Both in one read transaction on SQLite; on Postgres the number is read first, so nothing is left out.
    """
    cursor = session.exec(select(Run.last_event).where(Run.id == run_id)).one()
    table = metadata().tables["event"].c  # no ORM: of 100,000 rows it takes as long as all the rest
    statement = (
        select(table.attempt, table.time, table.step, table.body)
        .where(table.run_id == run_id, table.kind == "metrics", table.number <= cursor)
        .order_by(table.number)
    )
    if most is not None and cursor > most:
        statement = statement.where(_fewer(table, run_id, cursor, most))
    rows = session.connection().execute(statement).all()
    values = orjson.loads("[" + ",".join([row.body for row in rows]) + "]")
    return [
        Metrics(attempt, time, step or 0, _finite(each))
        for (attempt, time, step, _), each in zip(rows, values, strict=True)
    ], cursor


def _fewer(table: Any, run_id: int, cursor: int, most: int) -> ColumnElement[bool]:
    """Steps from place to place; the first and the latest ones; and all that is not measured at every step."""
    firsts = select(func.min(table.number)).where(table.run_id == run_id, table.kind == "metrics")
    return or_(
        table.step % (2 * cursor // most) == 0,
        table.step <= EDGE // 10,  # from which rewards are counted
        table.number > cursor - EDGE,
        table.number.in_(firsts.group_by(table.attempt)),  # by which `standing` knows what an attempt replaces
        ~table.body.contains('"loss"'),  # evals and samples
    )


def _finite(values: dict[str, Any]) -> dict[str, float | None]:
    if NUMBERS.issuperset(map(type, values.values())):  # as nearly always
        return values
    return {key: value if type(value) in NUMBERS else None for key, value in values.items()}


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


def curves(metrics: Sequence[Metrics], keys: Sequence[str] = (), points: int | None = None) -> dict[str, Curve]:
    """The curves of some keys, or of all, thinned to about `points` each. Where a step has a value twice, the later
    one counts."""
    rows = standing(metrics)
    starts = {each.attempt: each.began - each.offset for each in attempts(metrics)}
    steps = np.array([each.step for each in rows], dtype=np.int64)
    seconds = np.array([each.time - starts[each.attempt] for each in rows]).round(3)
    told = [each.values for each in rows]
    everywhere = np.arange(len(rows))
    tokens = list(accumulate((values.get(TOKENS, GAP) for values in told), _carried))
    names = dict.fromkeys(chain.from_iterable(told))
    made: dict[str, Curve] = {}
    for key in names:
        if keys and key not in keys:
            continue
        column = [values.get(key, GAP) for values in told]
        places = np.flatnonzero([value is not GAP for value in column]) if GAP in column else everywhere
        places = places[np.append(np.diff(steps[places]) != 0, True)]
        if points is not None and len(places) > points:
            value = np.array([None if each is GAP else each for each in column], dtype=np.float64)
            places = places[thin(steps[places], value[places], points)]
        kept = places.tolist()
        made[key] = Curve(
            steps[places].tolist(),
            [column[place] for place in kept],
            seconds[places].tolist(),
            [None if tokens[place] is GAP else tokens[place] for place in kept],
        )
    return made


def _carried(before: Any, now: Any) -> Any:
    return before if now is GAP else now


def thin(steps: Array, values: Array, points: int) -> Array:
    """The places of at most about `points` of a curve, chosen so that it looks the same (MinMaxLTTB); gaps stay gaps.

    `values`: floats, NaN where there is a gap. Equal in length to `steps`.
    """
    if len(steps) <= points:
        return np.arange(len(steps))
    finite = np.flatnonzero(np.isfinite(values))
    chosen = finite
    if len(finite) > points:
        chosen = finite[
            MinMaxLTTBDownsampler().downsample(steps[finite].astype(np.float64), values[finite], n_out=points)
        ]
    return np.union1d(chosen, np.flatnonzero(~np.isfinite(values))[:points])


def as_json(metrics: Sequence[Metrics], cursor: int, keys: Sequence[str] = ()) -> dict[str, Any]:
    """What a page loads before it goes on by events."""
    return {
        "cursor": cursor,
        "attempts": [vars(each) for each in attempts(metrics)],
        "series": {key: vars(curve) for key, curve in curves(metrics, keys, POINTS).items()},
    }
