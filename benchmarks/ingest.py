"""Points a second and bytes a point: from a journal into the database, as the relay does it.

    python -m benchmarks.ingest [--lines 20000] [--postgres URL] [--peers-python /path/to/python]

A point is one value at one step; a journal line of training holds nine. Every figure is durable: the transaction is
on the disk when it counts. `--peers-python` names a Python in which MLflow or Trackio are installed, to be measured
in the same run on the same points (python -m venv peers && peers/bin/pip install mlflow trackio).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import psutil
import sqlalchemy
from sqlalchemy.engine import make_url

from app import migrations
from app.db import Database
from app.experiments import service as experiments
from app.runs import service
from training.config import parse_config
from training.journal import Journal
from worker.relay import Relay, ship_all

NAMES = (
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens",
    "tokens_per_second",
    "epoch",
    "memory",
    "utilisation",
    "seconds",
)
LIVE = 111  # lines a shipment, about the 1,000 points that MLflow takes in one call
POSTGRES = "postgresql+psycopg://postgres@127.0.0.1/postgres"


def made_lines(count: int) -> list[dict[str, float]]:
    """Values as a trainer writes them: most with all their digits."""
    draw = random.Random(0)
    return [{name: step * 512 if name == "tokens" else draw.random() * 10 for name in NAMES} for step in range(count)]


def new_run(database: Database) -> int:
    config = parse_config({"stage": "sft", "model": "new:tiny", "dataset": "data:none"})
    with database.write() as session:
        experiment = experiments.get_or_create(session, "ingest")
        run = service.launch(session, experiment, service.NewRun(f"run-{uuid.uuid4().hex[:8]}", config))
    assert run.id is not None
    return run.id


def backlog(database: Database, lines: list[dict[str, float]]) -> tuple[float, int]:
    """Seconds for a whole journal that waits, and bytes that the database grew by."""
    run_id = new_run(database)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        write(path, lines)
        before = size(database)
        begun = time.perf_counter()
        ship_all(database, run_id, path)
        seconds = time.perf_counter() - begun
    return seconds, size(database) - before


def live(database: Database, lines: list[dict[str, float]]) -> float:
    """Seconds of shipping while a journal grows by about 1,000 points at a time."""
    run_id = new_run(database)
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        relay = Relay(database, run_id, path)
        for start in range(0, len(lines), LIVE):
            write(path, lines[start : start + LIVE], start)
            begun = time.perf_counter()
            relay.ship()
            seconds += time.perf_counter() - begun
    return seconds


def write(path: Path, lines: list[dict[str, float]], start: int = 0) -> None:
    journal = Journal(path, 1)
    journal.seq = start
    for step, values in enumerate(lines, start=start):
        journal.metrics(step, **values)
    journal.close()


def size(database: Database) -> int:
    """Bytes on the disk: SQLite's file with its log emptied into it, or Postgres' tables and indexes."""
    with database.engine.connect() as connection:
        if database.dialect == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            return Path(str(database.engine.url.database)).stat().st_size
        return int(connection.exec_driver_sql("SELECT pg_total_relation_size('event')").scalar_one())


def durability(database: Database) -> str:
    with database.engine.connect() as connection:
        if database.dialect == "sqlite":
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
            level = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
            return f"journal_mode={mode}, synchronous={level} (2 is FULL)"
        settings = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in ("fsync", "synchronous_commit")]
        return f"fsync={settings[0]}, synchronous_commit={settings[1]}, {connection.dialect.server_version_info}"


def measure(name: str, url: str, lines: list[dict[str, float]]) -> None:
    database = Database(url)
    migrations.upgrade(database.engine)
    points = len(lines) * len(NAMES)
    seconds, grown = backlog(database, lines)
    show(f"Preflab, {name}, backlog", points, seconds, grown)
    few = lines[: 50 * LIVE]
    show(f"Preflab, {name}, live", len(few) * len(NAMES), live(database, few), None)
    print(f"    {durability(database)}")
    database.dispose()


def measure_postgres(server: str, lines: list[dict[str, float]]) -> None:
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    name = f"preflab_bench_{uuid.uuid4().hex[:8]}"
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except sqlalchemy.exc.OperationalError:
        print(f"Postgres: none at {make_url(server).render_as_string()} (--postgres names another).")
        return
    try:
        measure("Postgres", make_url(server).set(database=name).render_as_string(hide_password=False), lines)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def measure_peers(python: str, lines: list[dict[str, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "lines.json"
        source.write_text(json.dumps(lines))
        for peer in ("mlflow", "trackio"):
            command = [python, str(Path(__file__).with_name("peers.py")), peer, str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
            told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not told:
                reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
                print(f"{peer}: not measured ({reason}). To install: {python} -m pip install {peer}")
                continue
            found = json.loads(told[0].removeprefix("RESULT "))
            show(f"{found['name']} {found['version']}", found["points"], found["seconds"], found["bytes"])


def show(name: str, points: int, seconds: float, grown: int | None) -> None:
    size_told = "" if grown is None else f", {grown / points:6.1f} bytes a point"
    print(f"{name:<28} {points / seconds:>10,.0f} points/s{size_told}  ({points:,} points in {seconds:.2f} s)")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=20_000, help="journal lines of nine points each")
    parser.add_argument("--postgres", default=os.environ.get("PREFLAB_TEST_POSTGRES", POSTGRES))
    parser.add_argument("--peers-python", help="a Python with mlflow or trackio installed")
    parser.add_argument("--peer-lines", type=int, default=3_000, help="fewer for the peers, which are slower")
    given = parser.parse_args()
    memory = psutil.virtual_memory().total / 2**30
    print(f"Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')}, psycopg {version('psycopg')}, "
          f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB")  # fmt: skip
    lines = made_lines(given.lines)
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", f"sqlite+pysqlite:///{folder}/preflab.db", lines)
    measure_postgres(given.postgres, lines)
    if given.peers_python:
        measure_peers(given.peers_python, lines[: given.peer_lines])
    else:
        print("MLflow and Trackio: not measured; name a Python that has them with --peers-python.")


if __name__ == "__main__":
    main()
