"""Server-sent events: replay from the cursor, then wait. What the protocol is: docs/live.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from app import tokens
from app.auth import Role, require
from app.db import UNREACHABLE
from app.live.cursor import format_cursor, parse_cursor, parse_runs
from app.live.hub import Hub, Listener, Unreadable
from app.web import database

api = APIRouter(tags=["live"])

HEARTBEAT = 15.0  # seconds of silence after which a beat is sent, so that proxies keep the stream open
BATCH = 500  # events of one run in one message
RETRY = b"retry: 1000\n\n"  # milliseconds after which a browser tries again
BEAT = b"event: beat\ndata: {}\n\n"  # an event, so that a page that slept sees that its stream is dead
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def hub(request: Request) -> Hub:
    """This process's hub, made when the first one listens."""
    state = request.app.state
    if not hasattr(state, "live"):
        state.live = Hub(database(request))
    found: Hub = state.live
    return found


@api.get("/live", dependencies=[require(Role.VIEWER)])
async def live(request: Request, runs: str, cursor: str = "") -> StreamingResponse:
    """Events of runs (`runs=1,2`) behind `cursor` (`1:45,2:9`), or the `Last-Event-ID` header; then what comes.

    `runs=active` instead sends the rows of all runs that are alive, and each again when it changes.
    """
    closing: asyncio.Event = request.app.state.closing
    if runs == "active":
        stream = active_runs(hub(request), closing)
    else:
        read = parse_cursor(request.headers.get("last-event-id") or cursor)
        stream = run_events(hub(request), closing, {run_id: read.get(run_id, 0) for run_id in parse_runs(runs)})
    stream = while_let_in(stream, lambda: asyncio.to_thread(_still_let_in, request))
    return StreamingResponse(stream, media_type="text/event-stream", headers=HEADERS)


def _still_let_in(request: Request) -> bool:
    """Whether the token or session that the request came with still counts."""
    with database(request).read() as session:
        return tokens.identify(session, *request.state.credential) is not None


async def while_let_in(
    stream: AsyncGenerator[bytes, None], still_let_in: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes, None]:
    """A stream that ends once its reader's token is revoked or expired, or signed out: within two HEARTBEATs, since
    a quiet stream beats. A database that is away turns nobody out; it has nothing new to tell either."""
    loop = asyncio.get_running_loop()
    asked = loop.time()
    async with aclosing(stream):
        async for message in stream:
            if loop.time() - asked >= HEARTBEAT:
                try:
                    if not await still_let_in():
                        return
                    asked = loop.time()
                except UNREACHABLE:
                    pass
            yield message


async def run_events(hub: Hub, closing: asyncio.Event, cursor: dict[int, int]) -> AsyncGenerator[bytes, None]:
    """The stream of some runs: messages with `{"events": [...]}`, whose id is the cursor behind them."""
    listener = hub.join(list(cursor))
    try:
        yield RETRY
        while not closing.is_set():
            listener.woken.clear()
            lines: list[bytes] = []
            for run_id in list(cursor):
                try:
                    new = await hub.after(run_id, cursor[run_id], BATCH)
                except Unreadable:
                    return  # the page says that it is not live, and asks again
                if new is None:
                    del cursor[run_id]
                    yield b'event: gone\ndata: {"run":%d}\n\n' % run_id
                    continue
                cursor[run_id] += len(new)  # numbers have no gaps
                lines += new
            if lines:
                yield b"id: " + format_cursor(cursor).encode() + b'\ndata: {"events":[' + b",".join(lines) + b"]}\n\n"
            elif not cursor:
                return
            elif not await _wait(listener, closing):
                yield BEAT
    finally:
        hub.leave(listener)


async def active_runs(hub: Hub, closing: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """The stream of a list: messages with `{"runs": [...]}`. A browser that comes back reads its page again."""
    listener = hub.join([], overview=True)
    version = 0
    try:
        yield RETRY
        while not closing.is_set():
            listener.woken.clear()
            now = hub.overview.version
            rows = hub.overview.after(version)
            version = now
            if rows:
                yield b'data: {"runs":[' + b",".join(rows) + b"]}\n\n"
            elif not await _wait(listener, closing):
                yield BEAT
    finally:
        hub.leave(listener)


async def _wait(listener: Listener, closing: asyncio.Event) -> bool:
    """Wait until woken or told to end. False after HEARTBEAT seconds in which nothing happened."""
    waits = {asyncio.ensure_future(listener.woken.wait()), asyncio.ensure_future(closing.wait())}
    try:
        done, _ = await asyncio.wait(waits, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for task in waits:
            task.cancel()
