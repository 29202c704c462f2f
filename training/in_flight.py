"""Many things that are waited for at once, such as requests, each given as it comes; in one thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, TypeVar

from training.errors import Stopped

Work = TypeVar("Work")
Result = TypeVar("Result")
Tool = TypeVar("Tool")

GRACE = 2.0  # seconds that what is on its way is waited for when all ends
POLL = 0.2  # seconds between two looks at the wish to stop


class Over(Exception):
    """Nothing more is begun: something failed, or the run is to stop."""


class End:
    """Whether all ends, and a way to wait that knows of it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Let time pass, none perhaps. Raises Over as soon as all ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        raise Over


def as_they_come(
    works: Iterable[Work],
    open_tool: Callable[[], AbstractAsyncContextManager[Tool]],
    do: Callable[[Tool, Work, End], Coroutine[None, None, Result]],
    most: int,
    stop: Callable[[], bool],
) -> Iterator[tuple[Work, Result]]:
    """Do works, `most` at once, with one tool that all share. Between two results, nothing moves: come back soon.

    The first failure of one ends all, and so does `stop()`, with Stopped: then no work is begun any more, those that
    wait on `End` give up, and what the others bring within GRACE seconds is given before the failure is raised.
    """
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        tool = runner.run(stack.enter_async_context(open_tool()))
        flight = _Flight(iter(works), lambda work, end: do(tool, work, end), most, stop)
        try:
            while found := runner.run(flight.next()):
                yield from found
        finally:
            runner.run(flight.close())
            runner.run(stack.aclose())


class _Flight(Generic[Work, Result]):
    """What is on its way, and what is still to be begun. All of it in one event loop."""

    def __init__(
        self,
        works: Iterator[Work],
        do: Callable[[Work, End], Coroutine[None, None, Result]],
        most: int,
        stop: Callable[[], bool],
    ) -> None:
        self._works, self._do, self._most, self._stop = works, do, most, stop
        self._tasks: dict[asyncio.Task[Result], Work] = {}
        self._end = End()
        self._failure: BaseException | None = None
        self._deadline = float("inf")

    async def next(self) -> list[tuple[Work, Result]]:
        """The results that came, one at least; none where all were given. Raises what ended it, after the last."""
        while True:
            if self._failure is None and self._stop():
                self._fail(Stopped())
            if self._failure is None:
                self._launch()
            if not self._tasks or time.monotonic() >= self._deadline:
                break
            await asyncio.wait(self._tasks, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
            done = [task for task in self._tasks if task.done()]
            if found := [(self._tasks.pop(task), task.result()) for task in done if self._is_good(task)]:
                return found
        if self._failure is not None:
            raise self._failure
        return []

    def _launch(self) -> None:
        while len(self._tasks) < self._most:
            try:
                work = next(self._works)
            except StopIteration:
                return
            self._tasks[asyncio.create_task(self._do(work, self._end))] = work

    def _is_good(self, task: asyncio.Task[Result]) -> bool:
        error = task.exception()
        if error is not None:
            del self._tasks[task]
            self._fail(error)
        return error is None

    def _fail(self, failure: BaseException) -> None:
        """The first failure is the one that is told."""
        if self._failure is None:
            self._failure = failure
            self._deadline = time.monotonic() + GRACE
            self._end.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
