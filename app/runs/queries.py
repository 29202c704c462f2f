"""What the pages and the API read of runs. Every function makes the same few queries, however many runs there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson
from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from app.models import Event, Experiment, Run, RunParent
from app.runs import states

PAGE_SIZE = 50
COLOURS = 5  # --run-1 .. --run-5 of the stylesheet
MOST_ACTIVE = 1000  # that live lists follow
ACTIVE = (states.WAITING, states.QUEUED, states.RUNNING)


@dataclass(frozen=True)
class Filter:
    """Which runs a list shows, in what order. All of it lies in the address."""

    text: str = ""
    stage: str = ""
    state: str = ""  # a state, or "active"
    experiment: int | None = None
    sort: str = "newest"
    page: int = 1

    def query(self, **changes: Any) -> str:
        """The address's query for this filter with some things changed."""
        changed = replace(self, **changes)
        names = {
            "text": "q",
            "stage": "stage",
            "state": "state",
            "experiment": "experiment",
            "sort": "sort",
            "page": "page",
        }
        plain = Filter()
        given = {
            short: getattr(changed, name)
            for name, short in names.items()
            if getattr(changed, name) != getattr(plain, name)
        }
        return "?" + urlencode(given)


@dataclass(frozen=True)
class RunsPage:
    """One page of a list."""

    rows: list[dict[str, Any]]
    total: int
    pages: int
    filter: Filter


def _metric(key: str) -> Any:
    return Run.summary[(key, "last")].as_float()  # type: ignore[index]


SORTS: dict[str, tuple[str, Any]] = {
    "newest": ("newest first", lambda: [col(Run.id).desc()]),
    "oldest": ("oldest first", lambda: [col(Run.id)]),
    "name": ("name", lambda: [func.lower(Run.name), col(Run.id).desc()]),
    "state": ("state", lambda: [col(Run.state), col(Run.id).desc()]),
    "loss": ("lowest loss", lambda: [_metric("loss").asc().nulls_last(), col(Run.id).desc()]),
    "eval_loss": ("lowest eval loss", lambda: [_metric("eval_loss").asc().nulls_last(), col(Run.id).desc()]),
    "ended": ("ended last", lambda: [col(Run.finished_at).desc().nulls_last(), col(Run.id).desc()]),
}


def list_runs(session: Session, wanted: Filter, size: int = PAGE_SIZE) -> RunsPage:
    """One page of the runs that a filter lets through: two queries."""
    total = session.exec(_filtered(select(func.count()).select_from(Run).join(Experiment), wanted)).one()
    pages = max(1, math.ceil(total / size))
    wanted = replace(wanted, page=min(max(1, wanted.page), pages))
    order = SORTS.get(wanted.sort, SORTS["newest"])[1]()
    statement = _filtered(select(Run, Experiment.name).join(Experiment), wanted)
    statement = statement.order_by(*order).limit(size).offset((wanted.page - 1) * size)
    return RunsPage([row(run, name) for run, name in session.exec(statement)], total, pages, wanted)


def _filtered(statement: Any, wanted: Filter) -> Any:
    if wanted.text.strip():
        like = "%" + wanted.text.strip().lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        name, owner = func.lower(Run.name), func.lower(Experiment.name)
        statement = statement.where(or_(name.like(like, escape="\\"), owner.like(like, escape="\\")))
    if wanted.stage:
        statement = statement.where(Run.stage == wanted.stage)
    if wanted.state == "active":
        statement = statement.where(col(Run.state).in_(ACTIVE))
    elif wanted.state:
        statement = statement.where(Run.state == wanted.state)
    if wanted.experiment is not None:
        statement = statement.where(Run.experiment_id == wanted.experiment)
    return statement


def active_rows(session: Session, also: Sequence[int] = ()) -> dict[int, dict[str, Any]]:
    """The rows of the runs that are alive, at most MOST_ACTIVE, running ones first; and of some others. By id."""
    both = select(Run, Experiment.name).join(Experiment)
    running_first = (col(Run.state) != states.RUNNING, col(Run.id).desc())
    alive = both.where(col(Run.state).in_(ACTIVE)).order_by(*running_first).limit(MOST_ACTIVE)
    found = {run.id: row(run, name) for run, name in session.exec(alive) if run.id is not None}
    missing = [run_id for run_id in also if run_id not in found]
    if missing:
        others = both.where(col(Run.id).in_(missing))
        found |= {run.id: row(run, name) for run, name in session.exec(others) if run.id is not None}
    return found


def row(run: Run, experiment: str) -> dict[str, Any]:
    """A run as lists, the API and live updates show it."""
    assert run.id is not None
    last = {key: finite(value.get("last")) for key, value in run.summary.items()}
    work = work_of(run)
    return {
        "id": run.id,
        "name": run.name,
        "experiment": {"id": run.experiment_id, "name": experiment},
        "stage": run.stage,
        "state": run.state,
        "active": run.state in ACTIVE,
        "stopping": run.state == states.RUNNING and run.desired_state == states.STOPPED,
        "phase": run.phase if run.state == states.RUNNING else "",
        "step": work.done,
        "total_steps": work.total,
        "unit": work.unit,
        "fraction": fraction(run),
        "loss": last.get("loss"),
        "eval_loss": last.get("eval_loss"),
        "tokens_per_second": last.get("tokens_per_second") if run.state == states.RUNNING else None,
        "device": device(run),
        "attempt": run.attempt,
        "priority": run.priority,
        "colour": colour(run.id),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "error": run.error,
        "last_event": run.last_event,
    }


def finite(value: Any) -> float | int | None:
    """A summary's number, where it is one: "NaN" and its kin are None."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


class Work(NamedTuple):
    """How far a run is: so many of so many (None: nobody knows yet), of what."""

    done: int
    total: int | None
    unit: str


STEPS = "steps"
ASKING = frozenset({"respond", "judge"})  # stages that ask models; they have answers or verdicts, and no steps
ASKED = frozenset({"answers", "requests", "pairs", "verdicts"})  # what they count


def work_of(run: Run) -> Work:
    """Steps of training; of a run that asks, what its latest progress counts."""
    if run.stage not in ASKING:
        return Work(run.step, run.total_steps, STEPS)
    told = run.progress or {}
    done, total, unit = told.get("done"), told.get("total"), told.get("unit")
    if unit not in ASKED or not isinstance(done, (int, float)):
        return Work(run.step, None, "answers")
    return Work(int(done), int(total) if isinstance(total, (int, float)) else None, unit)


def fraction(run: Run) -> float:
    """How much of the run is done, in [0, 1]."""
    if run.state == states.FINISHED:
        return 1.0
    work = work_of(run)
    return min(1.0, work.done / work.total) if work.total else 0.0


def device(run: Run) -> str:
    """Where it runs."""
    claim = run.claim or {}
    return " · ".join(str(claim[key]) for key in ("worker", "device") if claim.get(key))


def colour(run_id: int) -> int:
    """The run's fixed colour: a token's number."""
    return (run_id - 1) % COLOURS + 1


def experiments(session: Session) -> list[tuple[int, str]]:
    """(id, name) of all experiments, newest first."""
    statement = select(Experiment.id, Experiment.name).order_by(col(Experiment.id).desc())
    return [(key, name) for key, name in session.exec(statement) if key is not None]


def relatives(session: Session, run_id: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs that this one needs, and those that need it."""
    up = _named().join(RunParent, col(RunParent.parent_id) == col(Run.id)).where(col(RunParent.run_id) == run_id)
    down = _named().join(RunParent, col(RunParent.run_id) == col(Run.id)).where(col(RunParent.parent_id) == run_id)
    return [_brief(found) for found in session.exec(up)], [_brief(found) for found in session.exec(down)]


def _named() -> Any:
    return select(Run.id, Run.name, Run.state).order_by(col(Run.id))


def _brief(found: Any) -> dict[str, Any]:
    return {"id": found[0], "name": found[1], "state": found[2], "colour": colour(found[0])}


def queue_position(session: Session, run: Run) -> int | None:
    """1 for the next to run; None where it is not queued."""
    if run.state != states.QUEUED:
        return None
    earlier = or_(
        col(Run.priority) > run.priority,
        (col(Run.priority) == run.priority) & (col(Run.queued_at) < run.queued_at),
    )
    return session.exec(select(func.count()).select_from(Run).where(Run.state == states.QUEUED, earlier)).one() + 1


def events_of(
    session: Session, run_id: int, kinds: Sequence[str], after: int = 0, until: int | None = None, limit: int = 2000
) -> list[dict[str, Any]]:
    """The latest `limit` events of some kinds behind `after` and up to `until`, oldest first, bodies parsed."""
    statement = select(Event).where(Event.run_id == run_id, Event.number > after, col(Event.kind).in_(kinds))
    if until is not None:
        statement = statement.where(Event.number <= until)
    found = session.exec(statement.order_by(col(Event.number).desc()).limit(limit)).all()
    return [parsed(event) for event in reversed(found)]


def parsed(event: Event) -> dict[str, Any]:
    """An event as the API shows it."""
    return {
        "number": event.number,
        "attempt": event.attempt,
        "time": event.time,
        "kind": event.kind,
        "step": event.step,
        "body": orjson.loads(event.body),
    }
