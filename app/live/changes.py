"""The cheapest way to learn that something may have been committed."""

from __future__ import annotations

import asyncio
from typing import Any

from app.db import Database


class Signal:
    """On SQLite a pragma that reads one number from shared memory; on Postgres there is none, so: always maybe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None
        self._version: int | None = None

    async def changed(self) -> bool:
        """Whether anything may have been committed since the last call. Raises SQLAlchemyError."""
        if self._database.dialect != "sqlite":
            return True
        version = await asyncio.to_thread(self._data_version)
        changed = version != self._version
        self._version = version
        return changed

    def _data_version(self) -> int:
        if self._connection is None:
            # A connection of its own, outside of any transaction: the number counts what all others commit.
            self._connection = self._database.engine.raw_connection()
        cursor = self._connection.cursor()
        try:
            return int(cursor.execute("PRAGMA data_version").fetchone()[0])
        finally:
            cursor.close()

    def reset(self) -> None:
        """After trouble: the next call says that something may have changed."""
        self.close()
        self._version = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
