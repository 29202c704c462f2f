"""The relay: whole journal lines into the database, the lines and the position behind them in one transaction.

Anyone may relay at any time. Of two relays at once, the second finds the cursor moved and writes nothing; a crash
before the commit changes nothing, and one after it repeats nothing.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
from sqlalchemy import Table, insert, update
from sqlmodel import Session, select

from app.db import Database
from app.models import Event, Run
from training.failpoints import failpoint
from training.journal import MAX_LINE, BadLine, Chunk, Record, read_lines

LIMIT = 4 * MAX_LINE  # bytes of journal a transaction
CHECKED = 64  # bytes before the cursor that must not have changed
RUNS, EVENTS = cast(Table, Run.__table__), cast(Table, Event.__table__)  # type: ignore[attr-defined]


class Relay:
    """One journal's way into the database.

    It remembers what it wrote last, so that looking for new lines asks the database nothing, and shipping them needs
    no read first. Whoever else changed the row since has added an event: then nothing is written, and it looks again.
    """

    def __init__(self, database: Database, run_id: int, journal: Path) -> None:
        self.database, self.run_id, self.journal = database, run_id, journal
        self._shipped: _Shipped | None = None

    def ship(self, limit: int = LIMIT) -> int:
        """Ship the whole lines behind the run's cursor, about `limit` bytes at most. Returns how many bytes were new.

        0: nothing was, or the run is gone, or the journal is not what was shipped from (then the row's
        `journal_alarm` says so). Raises SQLAlchemy's errors where the database cannot be written.
        """
        while True:
            shipped = self._shipped or self._look()
            if shipped is None:
                return 0
            alarm = _alarm(self.journal, shipped)
            if alarm:
                _raise_alarm(self.database, self.run_id, shipped, alarm)
                self._shipped = None
                return 0
            try:
                chunk = read_lines(self.journal, shipped.cursor, limit)
            except FileNotFoundError:
                return 0
            new = chunk.end - shipped.cursor
            if not new:
                return 0
            check = checksum(self.journal, chunk.end)
            self._shipped = None  # until it is known to be committed
            with self.database.write() as session:
                written = _write(session, self.run_id, shipped, chunk, check)
                failpoint("before_relay_commit")
            failpoint("after_relay_commit")
            if written:
                self._shipped = shipped
                return new
            # Another relay got there first, or the run's state changed: look again.

    def _look(self) -> _Shipped | None:
        with self.database.read() as session:
            self._shipped = _Shipped.of(session, self.run_id)
        return self._shipped


def ship_all(database: Database, run_id: int, journal: Path) -> int:
    """Ship until nothing whole is left. Returns how many bytes were new."""
    relay, total = Relay(database, run_id, journal), 0
    while shipped := relay.ship():
        total += shipped
    return total


def checksum(journal: Path, cursor: int) -> int:
    """CRC-32 of the (at most 64) bytes before the cursor; -1 where the file is shorter. Raises FileNotFoundError."""
    start = max(0, cursor - CHECKED)
    with journal.open("rb") as file:
        file.seek(start)
        data = file.read(cursor - start)
    return zlib.crc32(data) if len(data) == cursor - start else -1


@dataclass
class _Shipped:
    """What the row says of the journal."""

    cursor: int
    last_event: int
    check: int
    alarm: str
    step: int
    total_steps: int | None
    phase: str
    progress: dict[str, Any] | None
    summary: dict[str, Any]
    attempt: int

    @classmethod
    def of(cls, session: Session, run_id: int) -> _Shipped | None:
        columns = (Run.cursor, Run.last_event, Run.cursor_check, Run.journal_alarm, Run.step, Run.total_steps)
        more = (Run.phase, Run.progress, Run.summary, Run.attempt)
        row = session.execute(select(*columns, *more).where(Run.id == run_id)).one_or_none()  # type: ignore[call-overload]
        return None if row is None else cls(*row)

    def take(self, record: Record) -> None:
        """Remember what the run's row tells at a glance."""
        if record.kind == "metrics":
            assert record.step is not None
            self.step = record.step
            for name, value in record.body["values"].items():
                self.summary[name] = summarised(self.summary.get(name), value, record.step)
        elif record.kind == "progress":
            self.progress = {**record.body, "time": record.time}
        elif record.kind == "status":
            facts = record.body.get("facts")
            steps = facts.get("steps") if isinstance(facts, dict) else None
            if type(steps) is int and 0 <= steps < 2**53:
                self.total_steps = steps
            self.phase = str(record.body.get("phase", "")).replace("\0", "")[:200]


def summarised(old: dict[str, Any] | None, value: float | str, step: int) -> dict[str, Any]:
    """A metric's last value and its extremes so far: {"last", "step", "min", "max"}.

    NaN and infinities are no JSON: `last` is None then, "not_finite" names it, and the extremes pass over it.
    """
    least, most = (old["min"], old["max"]) if old else (None, None)
    if isinstance(value, str):
        return {"last": None, "step": step, "min": least, "max": most, "not_finite": value}
    least = value if least is None or value < least else least
    most = value if most is None or value > most else most
    return {"last": value, "step": step, "min": least, "max": most}


def _alarm(journal: Path, shipped: _Shipped) -> str:
    """A sentence where the journal is not the file that was shipped from, else nothing."""
    if not shipped.cursor:
        return ""
    try:
        found = checksum(journal, shipped.cursor)
    except FileNotFoundError:
        return f"The journal is gone, of which {shipped.cursor:,} bytes had been read; what was read is kept."
    if found == -1:
        return (
            f"The journal is shorter than the {shipped.cursor:,} bytes that had been read of it; nothing is read again."
        )
    if found != shipped.check:
        return f"The journal was changed before byte {shipped.cursor:,}, up to which it had been read; nothing is read again."
    return ""


def _raise_alarm(database: Database, run_id: int, shipped: _Shipped, alarm: str) -> None:
    if shipped.alarm == alarm:
        return
    with database.write() as session:
        session.execute(update(RUNS).where(*_unchanged(run_id, shipped)).values(journal_alarm=alarm))


def _unchanged(run_id: int, shipped: _Shipped) -> tuple[Any, Any, Any]:
    """The row is as it was seen. Its cursor is not enough: a retry clears what the relay wrote, and leaves that."""
    return RUNS.c.id == run_id, RUNS.c.cursor == shipped.cursor, RUNS.c.last_event == shipped.last_event


def _write(session: Session, run_id: int, shipped: _Shipped, chunk: Chunk, check: int) -> bool:
    """Write the lines and what they change in the row, and say so in `shipped`. False where the row was changed."""
    unchanged = _unchanged(run_id, shipped)
    rows = [_row(run_id, line, shipped) for line in chunk.lines]
    shipped.cursor, shipped.check, shipped.alarm = chunk.end, check, ""
    statement = (
        update(RUNS)
        .where(*unchanged)
        .values(
            cursor=shipped.cursor,
            last_event=shipped.last_event,
            cursor_check=shipped.check,
            journal_alarm=shipped.alarm,
            bad_lines=RUNS.c.bad_lines + sum(isinstance(line, BadLine) for line in chunk.lines),
            step=shipped.step,
            total_steps=shipped.total_steps,
            phase=shipped.phase,
            progress=shipped.progress,
            summary=shipped.summary,
        )
    )
    connection = session.connection()
    if not connection.execute(statement).rowcount:
        return False
    if rows:
        connection.execute(insert(EVENTS), rows)
    return True


def _row(run_id: int, line: Record | BadLine, shipped: _Shipped) -> dict[str, Any]:
    """The line as an event, with the next number."""
    shipped.last_event += 1
    if isinstance(line, BadLine):
        body = {"reason": line.reason, "text": line.text}
        place = {"attempt": shipped.attempt, "seq": None, "time": time.time(), "kind": "bad_line", "step": None}
    else:
        shipped.take(line)
        body = line.body["values"] if line.kind == "metrics" else line.body
        place = {
            "attempt": line.attempt,
            "seq": line.seq,
            "time": line.time,
            "kind": line.kind,
            "step": line.step,
        }
    return {"run_id": run_id, "number": shipped.last_event, **place, "body": orjson.dumps(body).decode()}
