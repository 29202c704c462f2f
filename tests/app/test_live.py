"""The event stream: every event exactly once and in order, whatever happens between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as sql_event
from sqlalchemy.exc import OperationalError, ProgrammingError

from app import tokens
from app.auth import Role
from app.db import Database
from app.errors import Invalid
from app.experiments import service as experiments
from app.live import hub as hubs
from app.live import routes
from app.live.cursor import MOST_RUN_ID, MOST_RUNS, format_cursor, parse_cursor, parse_runs
from app.live.hub import Hub, Ring
from app.runs import service, states
from app.settings import Settings
from training.config import parse_config
from training.journal import Journal
from worker.relay import ship_all


class Writer:
    """A run whose journal is written and shipped."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        (settings.home / "chats.jsonl").write_text('{"text": "x"}\n')
        config = parse_config({"stage": "sft", "model": "new:tiny", "dataset": f"path:{settings.home}/chats.jsonl"})
        with database.write() as session:
            run = experiments.launch_one(session, settings, config)
            assert run.id is not None
            self.run_id = run.id
        self.path = settings.home / f"{self.run_id}.jsonl"
        self.journal = Journal(self.path, attempt=1)
        self.step = 0

    def write(self, count: int) -> None:
        for step in range(self.step + 1, self.step + count + 1):
            self.journal.metrics(step, loss=1.0 / step)
        self.step += count
        ship_all(self.database, self.run_id, self.path)


@pytest.fixture
def writer(any_database: Database, settings: Settings, tmp_path: Path) -> Writer:
    return Writer(any_database, settings)


class Reader:
    """One open stream, read as a browser reads it."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self.numbers: list[int] = []
        self.cursor = ""
        self.others: list[bytes] = []

    async def until(self, number: int) -> None:
        while not self.numbers or self.numbers[-1] < number:
            await self.message()

    async def message(self) -> None:
        message = await asyncio.wait_for(anext(self.stream), 10)
        if not message.startswith(b"id: "):
            self.others.append(message)
            return
        head, data = message.removesuffix(b"\n\n").split(b"\n")
        self.cursor = head.removeprefix(b"id: ").decode()
        self.numbers += [each["number"] for each in orjson.loads(data.removeprefix(b"data: "))["events"]]

    async def close(self) -> None:
        await self.stream.aclose()  # type: ignore[attr-defined]


def alive(database: Database, act: Callable[[Hub, asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a test on an event loop, with a hub; nothing may be left running."""

    async def whole() -> None:
        hub, closing = Hub(database), asyncio.Event()
        await act(hub, closing)
        assert hub._task is None and not hub._listeners and not hub._rings

    asyncio.run(whole())


def test_a_stream_replays_what_was_and_goes_on_with_what_comes(writer: Writer) -> None:
    writer.write(30)

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        reader = Reader(routes.run_events(hub, closing, {writer.run_id: 0}))
        await reader.until(31)
        for _ in range(5):
            await asyncio.to_thread(writer.write, 7)
        await reader.until(66)
        assert reader.numbers == list(range(1, 67))
        await reader.close()

    alive(writer.database, act)


def test_a_stream_that_comes_back_with_its_cursor_misses_nothing_and_sees_nothing_twice(writer: Writer) -> None:
    writer.write(10)

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        first = Reader(routes.run_events(hub, closing, {writer.run_id: 0}))
        await first.until(11)
        await first.close()
        await asyncio.to_thread(writer.write, 20)
        again = Reader(routes.run_events(Hub(writer.database), closing, parse_cursor(first.cursor)))
        await again.until(31)
        assert first.numbers + again.numbers == list(range(1, 32))
        await again.close()

    alive(writer.database, act)


def test_a_slow_listener_reads_from_the_database_what_the_ring_has_dropped(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "RING_EVENTS", 10)

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        quick = Reader(routes.run_events(hub, closing, {writer.run_id: 0}))
        slow = Reader(routes.run_events(hub, closing, {writer.run_id: 0}))
        await quick.until(1)
        await slow.until(1)
        for end in range(9, 90, 8):  # the slow one does not read all the while
            await asyncio.to_thread(writer.write, 8)
            await quick.until(end)
        assert len(hub._rings[writer.run_id]._lines) == 10
        await slow.until(quick.numbers[-1])
        assert slow.numbers == quick.numbers == list(range(1, quick.numbers[-1] + 1))
        await quick.close()
        await slow.close()

    alive(writer.database, act)


def test_more_events_than_one_look_takes_all_arrive(writer: Writer) -> None:
    async def act(hub: Hub, closing: asyncio.Event) -> None:
        reader = Reader(routes.run_events(hub, closing, {writer.run_id: 0}))
        await reader.until(1)
        await asyncio.to_thread(writer.write, 3500)
        await reader.until(3501)
        assert reader.numbers == list(range(1, 3502))
        await reader.close()

    alive(writer.database, act)


def test_changes_of_state_come_among_the_journal_lines(writer: Writer) -> None:
    writer.write(3)

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        reader = Reader(routes.run_events(hub, closing, {writer.run_id: 4}))
        await reader.message()
        waiting = asyncio.ensure_future(reader.until(5))
        with writer.database.write() as session:
            service.stop(session, writer.run_id)
        await waiting
        assert reader.cursor == f"{writer.run_id}:5"
        await reader.close()

    alive(writer.database, act)


def test_a_deleted_run_is_said_to_be_gone_and_its_stream_ends(writer: Writer) -> None:
    async def act(hub: Hub, closing: asyncio.Event) -> None:
        reader = Reader(routes.run_events(hub, closing, {writer.run_id: 1}))
        await reader.message()
        with writer.database.write() as session:
            service.delete(session, writer.run_id)
        with pytest.raises(StopAsyncIteration):
            while True:
                await reader.message()
        assert any(b"event: gone" in message for message in reader.others)

    alive(writer.database, act)


def test_streams_end_at_once_when_the_server_is_told_to(writer: Writer) -> None:
    async def act(hub: Hub, closing: asyncio.Event) -> None:
        streams = [routes.run_events(hub, closing, {writer.run_id: 1}), routes.active_runs(hub, closing)]
        ends = [asyncio.ensure_future(_drain(stream)) for stream in streams]
        await asyncio.sleep(0)
        closing.set()
        await asyncio.wait_for(asyncio.gather(*ends), 2)

    alive(writer.database, act)


def test_a_run_that_cannot_be_makes_nobody_elses_stream_wait(writer: Writer) -> None:
    async def act(hub: Hub, closing: asyncio.Event) -> None:
        odd = Reader(routes.run_events(hub, closing, dict.fromkeys(parse_runs(str(MOST_RUN_ID)), 0)))
        with pytest.raises(StopAsyncIteration):
            while True:
                await odd.message()
        assert any(b"event: gone" in message for message in odd.others)
        reader = Reader(routes.run_events(hub, closing, {writer.run_id: 0}))
        await reader.until(1)
        await asyncio.to_thread(writer.write, 5)
        await reader.until(6)
        await reader.close()

    alive(writer.database, act)


def test_a_run_whose_events_cannot_be_read_ends_its_own_streams_alone(
    any_database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Writer(any_database, settings), Writer(any_database, settings)

    def refuse(connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        listed = list(values.values()) if isinstance(values, dict) else list(values)
        if "FROM event" in statement and bad.run_id in listed:
            connection.exec_driver_sql("SELECT nothing FROM nowhere" if on_postgres else "SELECT 1")
            raise ProgrammingError(statement, {}, Exception("a mistake of ours"))

    on_postgres = any_database.dialect == "postgresql"

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        of_good = Reader(routes.run_events(hub, closing, {good.run_id: 0}))
        of_bad = Reader(routes.run_events(hub, closing, {bad.run_id: 0}))
        await of_good.until(1)
        await of_bad.until(1)
        sql_event.listen(any_database.engine, "before_cursor_execute", refuse)
        await asyncio.to_thread(lambda: (bad.journal.log("x"), ship_all(any_database, bad.run_id, bad.path)))
        with pytest.raises(StopAsyncIteration):
            while True:
                await of_bad.message()
        await asyncio.to_thread(good.write, 5)
        await of_good.until(6)
        await of_good.close()

    try:
        alive(any_database, act)
    finally:
        sql_event.remove(any_database.engine, "before_cursor_execute", refuse)
    assert f"The events of run {bad.run_id} cannot be read" in caplog.text


async def _drain(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        pass


def test_a_quiet_stream_beats(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT", 0.01)

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        reader = Reader(routes.run_events(hub, closing, {writer.run_id: 1}))
        while not any(b"event: beat" in message for message in reader.others):
            await reader.message()
        await reader.close()

    alive(writer.database, act)


@pytest.mark.parametrize("kind", [tokens.API, tokens.SESSION])
def test_a_stream_ends_once_its_token_no_longer_counts(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT", 0.01)
    with writer.database.write() as session:
        token, secret = tokens.create(session, kind, Role.VIEWER, "me")

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        app = FastAPI()
        app.state.database, app.state.live, app.state.closing = writer.database, hub, closing
        request = Request({"type": "http", "app": app, "headers": [], "state": {"credential": (secret, kind)}})
        answers = [await routes.live(request, runs=runs) for runs in (str(writer.run_id), "active")]
        readers = [Reader(answer.body_iterator) for answer in answers]  # type: ignore[arg-type]
        for reader in readers:
            while reader.others.count(routes.BEAT) < 3:
                await reader.message()
        with writer.database.write() as session:
            tokens.revoke(session, token.id or 0)
        for reader in readers:
            with pytest.raises(StopAsyncIteration):
                for _ in range(10):
                    await reader.message()

    alive(writer.database, act)


def test_signing_out_ends_what_the_browser_listens_to(
    app: FastAPI, browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT", 0.05)
    app.state.live = Hub(app.state.database)
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(browser.get, "/api/v1/live?runs=active")
        while not app.state.live._listeners and not stream.done():
            time.sleep(0.01)
        assert browser.post("/api/v1/sign-out").status_code == 200
        assert stream.result(timeout=20).status_code == 200


def test_a_database_that_is_away_turns_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT", 0.0)

    async def stream() -> AsyncGenerator[bytes, None]:
        yield b"1"
        yield b"2"

    async def away() -> bool:
        raise OperationalError("SELECT", {}, Exception("server closed the connection"))

    async def whole() -> list[bytes]:
        return [message async for message in routes.while_let_in(stream(), away)]

    assert asyncio.run(whole()) == [b"1", b"2"]


def test_no_transaction_stays_open_while_a_stream_waits(database: Database, settings: Settings) -> None:
    writer = Writer(database, settings)
    writer.write(5)
    open_now = 0

    def began(_connection: Any) -> None:
        nonlocal open_now
        open_now += 1

    def ended(_connection: Any) -> None:
        nonlocal open_now
        open_now -= 1

    sql_event.listen(database.engine, "begin", began)
    for name in ("commit", "rollback"):
        sql_event.listen(database.engine, name, ended)

    async def act(hub: Hub, closing: asyncio.Event) -> None:
        reader = Reader(routes.run_events(hub, closing, {writer.run_id: 0}))
        await reader.until(6)
        waiting = asyncio.ensure_future(reader.message())
        await asyncio.sleep(4 * hubs.POLL)
        assert open_now == 0
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await reader.close()

    alive(database, act)


def test_a_list_gets_the_active_runs_and_then_what_changes(writer: Writer) -> None:
    async def act(hub: Hub, closing: asyncio.Event) -> None:
        stream = routes.active_runs(hub, closing)

        async def rows() -> list[dict[str, Any]]:
            while True:
                message = await asyncio.wait_for(anext(stream), 10)
                if message.startswith(b'data: {"runs"'):
                    found: list[dict[str, Any]] = orjson.loads(message.removeprefix(b"data: "))["runs"]
                    return found

        assert [row["state"] for row in await rows()] == ["queued"]
        await asyncio.to_thread(writer.write, 3)
        assert [(row["id"], row["step"]) for row in await rows()] == [(writer.run_id, 3)]
        with writer.database.write() as session:
            service.stop(session, writer.run_id)
        assert [row["state"] for row in await rows()] == [states.STOPPED]
        await stream.aclose()

    alive(writer.database, act)


def test_a_ring_keeps_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "RING_BYTES", 100)
    ring = Ring(last=5)
    ring.add([b"x" * 30] * 10)
    assert ring.last == 15
    assert ring.after(15, 10) == []
    assert len(ring.after(12, 10) or []) == 3
    assert len(ring.after(12, 2) or []) == 2
    assert ring.after(11, 10) is None


@given(st.dictionaries(st.integers(0, MOST_RUN_ID), st.integers(0, 10**15), max_size=MOST_RUNS))
def test_a_cursor_survives_being_written_and_read(cursor: dict[int, int]) -> None:
    assert parse_cursor(format_cursor(cursor)) == cursor


@given(st.text(max_size=40))
def test_any_text_is_a_cursor_or_is_refused_with_a_sentence(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert all(isinstance(key, int) for key in parse_cursor(text))


@pytest.mark.parametrize("text", ["", "a", "-1", "1;2", "٣", "²", "2147483648", ",".join(map(str, range(101)))])
def test_runs_that_are_no_ids_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_runs(text)
