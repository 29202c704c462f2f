"""Engine and sessions. Every session is a read or a write, and a write commits before anyone is told.

SQLite: WAL, and a write begins with BEGIN IMMEDIATE, since a read that turns into a write fails at once
however long the busy timeout is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlmodel import Session, create_engine

BELLS = "bells"

UNREACHABLE = (OperationalError, InterfaceError, NoConnection)
"""What is raised while the database is down, locked, or full: the same may work a moment later."""

# A Postgres that hangs is noticed in seconds, well before a lease runs out.
POSTGRES = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class Database:
    """Sessions on one engine. `ring` is called with each run id that a committed write queued."""

    def __init__(self, url: str, ring: Callable[[int], None] | None = None) -> None:
        self.engine = make_engine(url)
        self._ring = ring

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking. Never committed."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits where its block ends well, then rings the bells that were asked for in it."""
        with Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"preflab_write": True})
            yield session
            session.commit()
        if self._ring is not None:
            for run_id in session.info.get(BELLS, ()):
                self._ring(run_id)

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    def dispose(self) -> None:
        self.engine.dispose()


def ring_after_commit(session: Session, run_id: int) -> None:
    """Tell the workers about a queued run once this session's work is committed."""
    session.info.setdefault(BELLS, []).append(run_id)


def one_at_a_time(session: Session, what: str) -> None:
    """Let only one transaction at a time do this, where names or numbers are chosen by what is there already.

    SQLite's writers stand in line anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": f"preflab {what}"})


def make_engine(url: str) -> Engine:
    """An engine with the settings that the run's life depends on."""
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(
            url, connect_args=POSTGRES, pool_pre_ping=True, pool_size=5, max_overflow=15, pool_recycle=1800
        )
    engine = create_engine(url, connect_args={"timeout": 5, "check_same_thread": False}, pool_size=5, max_overflow=40)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _begin_sqlite does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("preflab_write")
    connection.execute(text("BEGIN IMMEDIATE" if write else "BEGIN"))
