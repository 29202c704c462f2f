"""Journal line to browser event: `python -m benchmarks.live [--listeners 200] [--seconds 20] [--url DATABASE_URL]`.

One process writes a real journal, a line every 20 ms; a second ships it with `worker.relay.ship` as a worker's watch
does; a third is the web server; the fourth, this one, holds the listeners, each an SSE stream of its own. Measured is
the time from just before the line is written to its arrival at each listener, on one machine's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson

from app import migrations, tokens
from app.auth import Role
from app.db import Database
from app.experiments import service as experiments
from app.settings import Settings
from training.config import parse_config
from training.journal import Journal
from worker.launcher import LOOK_SECONDS
from worker.relay import ship_all

EVERY = 0.02  # seconds between two lines


def write(journal: Path, seconds: float) -> None:
    """Journal lines that carry the moment of their writing."""
    writer = Journal(journal, attempt=1)
    end, step = time.time() + seconds, 0
    while time.time() < end:
        step += 1
        writer.metrics(step, loss=1.0 / step, sent=time.time())
        time.sleep(EVERY)


def relay(url: str, run_id: int, journal: Path, seconds: float) -> None:
    """Ship what there is, every LOOK_SECONDS."""
    database, end = Database(url), time.monotonic() + seconds + 1
    while time.monotonic() < end:
        ship_all(database, run_id, journal)
        time.sleep(LOOK_SECONDS)


async def listen(port: int, token: str, run_id: int, seconds: float, delays: list[float]) -> list[int]:
    """One stream, read for so long. Returns the numbers of the events that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        f"GET /api/v1/live?runs={run_id}&cursor={run_id}:1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
    )
    writer.write(request.encode())
    numbers: list[int] = []
    deadline = time.monotonic() + seconds
    try:
        while True:
            line = await asyncio.wait_for(reader.readline(), deadline - time.monotonic())
            now = time.time()
            if line.startswith(b'data: {"events"'):
                for event in orjson.loads(line[6:])["events"]:
                    numbers.append(event["number"])
                    delays.append(now - event["body"]["sent"])
    except TimeoutError:
        return numbers
    finally:
        writer.close()


async def measure(port: int, token: str, run_id: int, count: int, seconds: float) -> tuple[list[float], bool]:
    """All delays, and whether every listener got every event once and in order."""
    delays: list[float] = []
    found = await asyncio.gather(*(listen(port, token, run_id, seconds, delays) for _ in range(count)))
    complete = all(numbers == list(range(2, len(numbers) + 2)) and numbers for numbers in found)
    return delays, complete and len({len(numbers) for numbers in found}) == 1


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--listeners", type=int, default=200)
    arguments.add_argument("--seconds", type=float, default=20)
    arguments.add_argument(
        "--url", default="", help="a database that may be filled; SQLite in a temporary folder unless given"
    )
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = Settings(home=home, database_url=given.url, port=0, allowed_paths=[home])
        settings.create_home()
        database = Database(settings.database)
        migrations.upgrade(database.engine)
        run_id, token = prepare(database, settings)
        port = free_port()
        environment = {
            "PREFLAB_HOME": folder,
            "PREFLAB_DATABASE_URL": given.url,
            "PREFLAB_PORT": str(port),
            "PREFLAB_LOG_LEVEL": "warning",
        }
        server = subprocess.Popen([sys.executable, "-m", "app.serve"], env=environment)
        try:
            wait_for(port)
            report(given, settings, run_id, token, port)
        finally:
            server.terminate()
            server.wait()


def prepare(database: Database, settings: Settings) -> tuple[int, str]:
    """A run, and a token that may listen to it."""
    (settings.home / "data.jsonl").write_text('{"text": "x"}\n')
    config = parse_config({"stage": "sft", "model": "new:tiny", "dataset": f"path:{settings.home}/data.jsonl"})
    with database.write() as session:
        run = experiments.launch_one(session, settings, config, experiment=f"bench-{time.time_ns()}")
        _, token = tokens.create(session, tokens.API, Role.VIEWER, "benchmark")
        assert run.id is not None
        return run.id, token


def report(given: argparse.Namespace, settings: Settings, run_id: int, token: str, port: int) -> None:
    journal = settings.home / "journal.jsonl"
    journal.touch()
    parts = [
        multiprocessing.Process(target=write, args=(journal, given.seconds)),
        multiprocessing.Process(target=relay, args=(settings.database, run_id, journal, given.seconds)),
    ]

    async def whole() -> tuple[list[float], bool]:
        task = asyncio.create_task(measure(port, token, run_id, given.listeners, given.seconds + 3))
        await asyncio.sleep(1)  # all listeners are there before the first line
        for part in parts:
            part.start()
        return await task

    delays, complete = asyncio.run(whole())
    for part in parts:
        part.join()
    p50, p99, worst = (1000 * value for value in np.percentile(delays, [50, 99, 100]))
    print(f"journal line to browser event, {given.listeners} listeners, a line every {1000 * EVERY:.0f} ms")
    print(f"  {len(delays):,} deliveries; p50 {p50:.0f} ms, p99 {p99:.0f} ms, worst {worst:.0f} ms")
    print(f"  every listener got every event once and in order: {complete}")
    names = ("preflab", "fastapi", "starlette", "uvicorn", "sqlalchemy")
    print(f"  Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names))
    print(f"  {settings.database.split(':', 1)[0]}; {cores()} cores, {processor()}")


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    import socket

    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the web server did not start"
            time.sleep(0.05)


def cores() -> int:
    return multiprocessing.cpu_count()


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
