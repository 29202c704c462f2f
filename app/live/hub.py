"""Who listens to what: one watcher a process looks whether anything was committed, and wakes those whom it concerns.

A listener owns a cursor and nothing else. New events of a run lie in one bounded ring that all its listeners share;
whoever is too slow for the ring reads from the database, from its cursor on. So memory does not grow with slowness.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from itertools import islice

from app.db import UNREACHABLE, Database
from app.live import events
from app.live.changes import Signal
from app.live.overview import Overview

log = logging.getLogger(__name__)

POLL = 0.05  # seconds between two looks at the database, while somebody listens
OVERVIEW_POLL = 0.5  # seconds between two looks at all active runs, while a list is open
RING_EVENTS = 2000
RING_BYTES = 4 << 20


class Unreadable(Exception):
    """A run's events cannot be read, through a mistake of ours; the log says more."""


class Ring:
    """The latest events of one run. Numbers have no gaps, so a place in the ring is a subtraction."""

    def __init__(self, last: int) -> None:
        self.last = last  # number of the last event that the watcher has seen
        self.gone = False
        self.unreadable = False
        self._lines: deque[bytes] = deque()
        self._bytes = 0

    def add(self, lines: list[bytes]) -> None:
        for line in lines:
            self._lines.append(line)
            self._bytes += len(line)
        self.last += len(lines)
        while len(self._lines) > RING_EVENTS or (self._bytes > RING_BYTES and len(self._lines) > 1):
            self._bytes -= len(self._lines.popleft())

    def after(self, number: int, limit: int) -> list[bytes] | None:
        """The events behind `number`, at most `limit`, or None where the ring does not reach back so far."""
        skip = number - (self.last - len(self._lines))
        return None if skip < 0 else list(islice(self._lines, skip, skip + limit))


class Listener:
    """One open stream. `woken` is set when one of its runs, or the list that it shows, has something new."""

    def __init__(self, run_ids: list[int], overview: bool) -> None:
        self.run_ids = run_ids
        self.overview = overview
        self.woken = asyncio.Event()
        self.woken.set()


class Hub:
    """All listeners of this process, and the task that wakes them. Lives on the server's event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: set[Listener] = set()
        self._rings: dict[int, Ring] = {}
        self._task: asyncio.Task[None] | None = None
        self.overview = Overview(database)

    def join(self, run_ids: list[int], *, overview: bool = False) -> Listener:
        """Begin to listen. `leave` must follow."""
        listener = Listener(run_ids, overview)
        self._listeners.add(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="live watcher")
        return listener

    def leave(self, listener: Listener) -> None:
        """The last one to leave switches the watcher off."""
        self._listeners.discard(listener)
        watched = self._watched()
        self._rings = {run_id: ring for run_id, ring in self._rings.items() if run_id in watched}
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None

    async def after(self, run_id: int, number: int, limit: int) -> list[bytes] | None:
        """Events of a run behind `number`: none where there is nothing new, None where the run is gone.

        Raises Unreadable: the stream ends then, and only the pages of this run are not live.
        """
        ring = self._rings.get(run_id)
        if ring is not None and ring.unreadable:
            raise Unreadable(f"run {run_id}")
        if ring is not None and ring.gone:
            return None
        if ring is None:
            return []  # the watcher has not looked yet; it wakes us when it has
        if number >= ring.last:
            return []
        lines = ring.after(number, limit)
        return lines if lines is not None else await asyncio.to_thread(self._replay, run_id, number, limit)

    def _replay(self, run_id: int, number: int, limit: int) -> list[bytes]:
        with self._database.read() as session:
            return events.after(session, run_id, number, limit)

    def _watched(self) -> set[int]:
        return {run_id for listener in self._listeners for run_id in listener.run_ids}

    async def _watch(self) -> None:
        """Look every POLL seconds until cancelled. Nothing ends it: not a database that is away for a while, and
        no mistake of ours, which would otherwise freeze every page."""
        loop = asyncio.get_running_loop()
        next_overview = 0.0
        said = ""
        signal = Signal(self._database)
        try:
            while True:
                try:
                    changed = await signal.changed()
                    if changed or self._watched() - self._rings.keys():
                        await self._look()
                    if loop.time() >= next_overview and any(listener.overview for listener in self._listeners):
                        next_overview = loop.time() + OVERVIEW_POLL
                        await self._look_over()
                    said = ""
                except UNREACHABLE as error:
                    if said != "away":
                        log.warning("Live pages wait for the database: %s", error)
                    said = "away"
                    signal.reset()
                    await asyncio.sleep(1)
                except Exception as error:
                    if said != repr(error):
                        log.error("Live pages stand still", exc_info=error)
                    said = repr(error)
                    signal.reset()
                    await asyncio.sleep(1)
                await asyncio.sleep(POLL)
        finally:
            signal.close()

    async def _look(self) -> None:
        """Put what is new into the rings, and wake whom it concerns."""
        watched = self._watched()
        known = {run_id: ring.last for run_id, ring in self._rings.items() if run_id in watched}
        last, fresh, unreadable = await asyncio.to_thread(self._read, watched, known)
        changed = set()
        for run_id in watched & self._watched():
            ring = self._rings.get(run_id)
            if run_id not in last:
                changed.add(run_id)
                self._rings.setdefault(run_id, Ring(0)).gone = True
            elif ring is None:
                changed.add(run_id)
                self._rings[run_id] = Ring(last[run_id])
            elif run_id in unreadable:
                changed.add(run_id)
                ring.unreadable = True
            elif run_id in fresh and ring.last == known[run_id]:
                changed.add(run_id)
                if len(fresh[run_id]) < events.PAGE:
                    ring.add(fresh[run_id])
                else:  # more than one look takes: listeners read these from the database
                    self._rings[run_id] = Ring(last[run_id])
        for listener in self._listeners:
            if changed.intersection(listener.run_ids):
                listener.woken.set()

    def _read(
        self, watched: set[int], known: dict[int, int]
    ) -> tuple[dict[int, int], dict[int, list[bytes]], set[int]]:
        """Each run's last number, the events behind the known ones, and the runs whose events cannot be read."""
        fresh: dict[int, list[bytes]] = {}
        unreadable: set[int] = set()
        with self._database.read() as session:
            last = events.last_numbers(session, watched)
            for run_id, number in known.items():
                if last.get(run_id, 0) <= number:
                    continue
                try:
                    fresh[run_id] = events.after(session, run_id, number)
                except UNREACHABLE:
                    raise
                except Exception as error:
                    session.rollback()
                    log.error("The events of run %d cannot be read", run_id, exc_info=error)
                    unreadable.add(run_id)
        return last, fresh, unreadable

    async def _look_over(self) -> None:
        if self.overview.update(await asyncio.to_thread(self.overview.read)):
            for listener in self._listeners:
                if listener.overview:
                    listener.woken.set()
