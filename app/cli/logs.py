"""`preflab runs logs`: what a run said, and what happened to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer
from sqlmodel import col, select

from app.cli.common import AsJson, RunName, bench, emit, the_run
from app.db import Database
from app.models import Event, Run
from app.runs import states

KINDS = ("log", "status", "state", "bad_line")
SECONDS = 0.5


def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """A run's log: what it said, and its changes of state. With -f and --json: one object a line."""
    with bench() as here:
        with here.database.read() as session:
            found = the_run(session, run)
        assert found.id is not None
        lines = follow_lines(here.database, found.id) if follow else iter(read_lines(here.database, found.id, 0))
        if as_json and not follow:
            emit({"rows": list(lines)})
            return
        for line in lines:
            print(orjson.dumps(line).decode() if as_json else as_text(line), flush=True)


def read_lines(database: Database, run_id: int, after: int) -> list[dict[str, Any]]:
    """The lines whose event numbers are greater than `after`."""
    statement = (
        select(Event)
        .where(Event.run_id == run_id, col(Event.number) > after, col(Event.kind).in_(KINDS))
        .order_by(col(Event.number))
    )
    with database.read() as session:
        return [as_line(event) for event in session.exec(statement)]


def follow_lines(database: Database, run_id: int) -> Iterator[dict[str, Any]]:
    """Lines as they come, until the run has ended."""
    after = 0
    while True:
        with database.read() as session:
            run = session.get(Run, run_id)
        for line in read_lines(database, run_id, after):
            after = line["number"]
            yield line
        if run is None or run.state in states.ENDED:  # read before the lines, so that none is missed
            return
        time.sleep(SECONDS)


def as_line(event: Event) -> dict[str, Any]:
    body = orjson.loads(event.body)
    return {
        "number": event.number,
        "time": event.time,
        "attempt": event.attempt,
        "kind": event.kind,
        "step": event.step,
        "level": body.get("level", "warning" if event.kind == "bad_line" else "info"),
        "message": _message(event.kind, body),
    }


def _message(kind: str, body: dict[str, Any]) -> str:
    if kind == "log":
        return str(body.get("message", ""))
    if kind == "status":
        return str(body.get("phase", ""))
    if kind == "bad_line":
        return f"A line of the journal could not be read: {body.get('reason', '')}"
    because = f": {error['message']}" if (error := body.get("error")) else ""
    return f"{body.get('when', '')}{because}"


def as_text(line: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(line["time"]))
    step = "" if line["step"] is None else f" step {line['step']:,}:"
    level = "" if line["level"] == "info" else f" {line['level'].upper()}"
    return f"{clock} {line['kind']}{level}{step} {line['message']}"
