"""What every test may use: a home of its own, real databases and brokers, and one thread for torch.

PostgreSQL and Redis are real ones. Where one cannot be had, its tests are skipped and say so; under CI they fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy
from sqlalchemy.engine import make_url

from app import migrations
from app.db import Database
from app.models import metadata
from app.settings import Settings

POSTGRES = os.environ.get("PREFLAB_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1/postgres")
REDIS = os.environ.get("PREFLAB_TEST_REDIS", "redis://127.0.0.1:6379/15")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No PREFLAB_ variable and no .env file of whoever runs the tests decides anything."""
    for name in list(os.environ):
        if name.startswith("PREFLAB_"):
            monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv("PREFLAB_HOME", str(tmp_path / "home"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation of its own: SQLite and a queue of files in a temporary home."""
    settings = Settings(home=tmp_path / "home", allowed_paths=[tmp_path], port=0)
    settings.create_home()
    return settings


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("migrated") / "preflab.db"
    for database in _migrated(f"sqlite+pysqlite:///{path}"):
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def database(settings: Settings, migrated_file: Path) -> Iterator[Database]:
    """A migrated SQLite file. Nobody is rung."""
    shutil.copy(migrated_file, settings.home / "preflab.db")
    database = Database(settings.database)
    yield database
    database.dispose()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty Postgres database, dropped afterwards."""
    with _new_postgres() as url:
        yield url


@contextlib.contextmanager
def _new_postgres() -> Iterator[str]:
    server = sqlalchemy.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    name = f"preflab_test_{uuid.uuid4().hex[:12]}"
    try:
        with server.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
            # Tests kill processes, not machines: no need to wait for the disk at each commit.
            connection.execute(sqlalchemy.text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    except sqlalchemy.exc.OperationalError as error:
        _missing(f"PostgreSQL cannot be reached (PREFLAB_TEST_POSTGRES): {error.orig}")
    try:
        yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        server.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database, once SQLite and once Postgres."""
    if request.param == "sqlite":
        yield request.getfixturevalue("database")
        return
    database: Database = request.getfixturevalue("one_postgres")
    with database.engine.begin() as connection:
        for table in reversed(metadata().sorted_tables):  # TRUNCATE would take a second
            connection.execute(table.delete())
    database._ring = None
    yield database


@pytest.fixture(scope="session")
def one_postgres() -> Iterator[Database]:
    """One migrated Postgres database for all tests that only need an emptied one: making one takes a second."""
    with _new_postgres() as url:
        yield from _migrated(url)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis of the test's own, append-only; where the program is missing, an emptied database of a running one."""
    if shutil.which("redis-server"):
        with redis_server(tmp_path / "redis", free_port()) as url:
            yield url
        return
    client = redis.Redis.from_url(REDIS, socket_timeout=3)
    try:
        client.flushdb()
    except redis.RedisError as error:
        _missing(f"There is no redis-server here, and no Redis at {REDIS} (PREFLAB_TEST_REDIS): {error}")
    yield REDIS
    client.flushdb()


@contextlib.contextmanager
def redis_server(folder: Path, port: int) -> Iterator[str]:
    """Run a Redis server; started again on the same folder it knows what it knew."""
    folder.mkdir(parents=True, exist_ok=True)
    process = start_redis(folder, port)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def start_redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a Redis server and wait until it answers."""
    options = ["--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = redis.Redis(port=port, socket_timeout=1)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            return process
        except redis.RedisError:
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def torch_one_thread() -> Iterator[None]:
    """Torch on one thread: quick for small models, and the same to the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _migrated(url: str) -> Iterator[Database]:
    database = Database(url)
    migrations.upgrade(database.engine)
    try:
        yield database
    finally:
        database.dispose()


def _missing(message: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
