"""What lists show of the runs that are alive: state, progress, latest metrics. Kept small, whatever the history."""

from __future__ import annotations

from itertools import islice
from typing import Any

import orjson

from app.db import Database
from app.runs import queries

KEPT = 200  # changes that are kept for listeners; whoever is further behind gets all active runs


class Overview:
    """The active runs' rows, and which of them changed at each version."""

    def __init__(self, database: Database) -> None:
        self.version = 0
        self._database = database
        self._rows: dict[int, dict[str, Any]] = {}
        self._changes: list[tuple[int, bytes]] = []  # (version, JSON of one row)
        self._forgotten = 0  # changes up to this version are not all kept any more

    def read(self) -> dict[int, dict[str, Any]]:
        """The active runs, and those that were active before. Called in a thread."""
        with self._database.read() as session:
            return queries.active_rows(session, list(self._rows))

    def update(self, rows: dict[int, dict[str, Any]]) -> bool:
        """Take what `read` found. True where anything changed."""
        changed = [row for key, row in rows.items() if self._rows.get(key) != row]
        gone = self._rows.keys() - rows.keys()
        # Running ones stand first. Those behind the most that a list follows are forgotten, which is not to be gone.
        active = ((key, row) for key, row in rows.items() if row["active"])
        self._rows = dict(islice(active, queries.MOST_ACTIVE))
        if not changed and not gone:
            return False
        self.version += 1
        lines = [orjson.dumps(row) for row in changed] + [orjson.dumps({"id": key, "gone": True}) for key in gone]
        self._changes += [(self.version, line) for line in lines]
        if len(self._changes) > KEPT:
            self._forgotten = self._changes[-KEPT - 1][0]
            self._changes = self._changes[-KEPT:]
        return True

    def after(self, version: int) -> list[bytes]:
        """The rows that changed since a version; all active ones for somebody new, or far behind."""
        if version > 0 and self._forgotten <= version:
            return [line for at, line in self._changes if at > version]
        ended = [line for _, line in self._changes] if version else []
        return ended + [orjson.dumps(row) for row in self._rows.values()]
