"""A database that cannot be written, is half migrated or drops its connections, and a broker that hangs: whoever asks
gets an answer in words, and nothing is lost or doubled."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
import redis
import sqlalchemy
from fastapi.testclient import TestClient
from sqlmodel import select

from app import migrations, tokens
from app.auth import Role
from app.db import Database
from app.errors import Unavailable
from app.main import create_app
from app.models import Run
from app.runs import states
from tests.faults.test_workers import TRAINING, finished
from tests.worker.helpers import claim, launch, row, until
from training.journal import Journal
from training.rundir import RunDir
from worker.relay import ship_all


def form(settings, **more):
    data = settings.home / "chats.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    return {"stage": "sft", "config": {"model": "new:micro", "dataset": f"path:{data}"}, **more}


def runs(database):
    with database.read() as session:
        return session.exec(select(Run)).all()


def cut_connections(database):
    """End every connection to this Postgres database but our own."""
    with database.engine.connect() as connection:
        return connection.exec_driver_sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).scalar_one()


@contextlib.contextmanager
def read_only(database):
    """A Postgres server that has become a standby, to those who connect."""
    name = database.engine.url.database
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        connection.commit()
    cut_connections(database)
    yield
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        connection.exec_driver_sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        connection.commit()
    cut_connections(database)


@pytest.mark.postgres
@pytest.mark.redis
def test_a_database_that_may_only_be_read_is_said_to_be_and_pages_go_on(with_servers):
    known = launch(with_servers.database, with_servers.settings, "known")
    web = with_servers.web()
    new = form(with_servers.settings, name="new")
    with read_only(with_servers.database):
        refused = web.post("/api/v1/runs", json=new)
        assert refused.status_code == 503
        assert "The database is read-only." in refused.text
        assert "Traceback" not in refused.text
        assert web.get(f"/api/v1/runs/{known}").status_code == 200
        assert web.get("/runs", headers={"Accept": "text/html"}).status_code == 200
    assert web.post("/api/v1/runs", json=new).status_code == 201
    assert [run.name for run in runs(with_servers.database)] == ["known", "new"]


def test_a_file_that_may_only_be_read_is_said_to_be_and_pages_go_on(embedded):
    """With SQLite's own switch: root, as whom tests may run, could write to any file."""
    known = launch(embedded.database, embedded.settings, "known")
    with embedded.database.write() as session:
        secret = tokens.create(session, tokens.API, Role.ADMIN, "test")[1]
    app = create_app(embedded.settings)
    engine = app.state.database.engine
    new = form(embedded.settings, name="new")

    def forbid(connection, _):
        connection.execute("PRAGMA query_only=ON")

    engine.dispose()
    sqlalchemy.event.listen(engine, "connect", forbid)
    with TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {secret}"}) as web:
        refused = web.post("/api/v1/runs", json=new)
        assert refused.status_code == 503
        assert "The database is read-only." in refused.text
        assert web.get(f"/api/v1/runs/{known}").status_code == 200
        assert web.get("/runs", headers={"Accept": "text/html"}).status_code == 200
        sqlalchemy.event.remove(engine, "connect", forbid)
        engine.dispose()
        assert web.post("/api/v1/runs", json=new).status_code == 201
    engine.dispose()
    assert [run.name for run in runs(embedded.database)] == ["known", "new"]


MIGRATE = "import sys; from app import migrations; from app.db import Database; migrations.upgrade(Database(sys.argv[1]).engine)"


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_a_migration_that_is_killed_leaves_the_database_as_it_was(kind, settings, request):
    url = settings.database if kind == "sqlite" else request.getfixturevalue("postgres_url")
    killed = subprocess.run(
        [sys.executable, "-c", MIGRATE, url],
        env={**os.environ, "PREFLAB_FAILPOINT": "before_migration_commit"},
        check=False,
    )
    assert killed.returncode == 137
    database = Database(url)
    assert sqlalchemy.inspect(database.engine).get_table_names() == []
    with pytest.raises(Unavailable, match="revision none"):
        migrations.check(database.engine)
    subprocess.run([sys.executable, "-c", MIGRATE, url], check=True)
    migrations.check(database.engine)
    database.dispose()


@pytest.mark.parametrize("module", ["app.serve", "worker"])
@pytest.mark.parametrize(("revision", "told"), [("9999", "revision 9999"), (None, "revision none")])
def test_neither_server_nor_worker_starts_on_a_database_of_another_revision(embedded, module, revision, told):
    with embedded.database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
        if revision:
            connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")
    process = embedded.start("-m", module)
    assert process.wait(30) == 2
    said = embedded.log.read_text()
    assert told in said
    assert "preflab db upgrade" in said
    assert "Traceback" not in said


class Browser(threading.Thread):
    """Follows a run's stream, and comes back with its cursor when it ends, as a browser does."""

    def __init__(self, web, run_id, last):
        super().__init__()
        self.web, self.run_id, self.last = web, run_id, last
        self.numbers, self.connections, self.odd = [], 0, []

    def run(self):
        cursor, deadline = "", time.monotonic() + 60
        while self.last not in self.numbers and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                cursor = self.follow(cursor)
            time.sleep(0.1)  # a browser pauses too before it comes back

    def follow(self, cursor):
        headers = {"Last-Event-ID": cursor} if cursor else {}
        with self.web.stream("GET", f"/api/v1/live?runs={self.run_id}", headers=headers) as answer:
            self.connections += 1
            if answer.status_code != 200:
                self.odd.append(answer.status_code)
                return cursor
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    cursor = line.removeprefix("id: ")
                elif line.startswith('data: {"events"'):
                    self.numbers += [event["number"] for event in json.loads(line.removeprefix("data: "))["events"]]
                if self.last in self.numbers:
                    break
        return cursor


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.redis
def test_connections_that_postgres_ends_cost_pages_a_sentence_at_most_and_streams_no_event(with_servers):
    database = with_servers.database
    run_id = launch(database, with_servers.settings)
    assert claim(database) is not None
    run_dir = RunDir(with_servers.settings.run_folder(run_id))
    run_dir.create()
    journal = Journal(run_dir.journal, 1)
    web = with_servers.web()
    cuts, steps = 12, 20
    browser = Browser(web, run_id, last=2 + cuts * steps)  # launch and claim are events too
    browser.start()
    until(lambda: browser.connections)
    cut, over = 0, threading.Event()

    def ask():
        found = []
        while not over.is_set():
            found.append(web.get("/runs"))
        return found

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for turn in range(cuts):
            for step in range(turn * steps, (turn + 1) * steps):
                journal.metrics(step, loss=1.0)
            ship_all(database, run_id, run_dir.journal)
            cut += cut_connections(database)
        browser.join()
        over.set()
        asked = [answer for each in asking for answer in each.result()]
    cut += cut_connections(database)
    rested = [web.get(path).status_code for path in ("/runs", f"/api/v1/runs/{run_id}")]
    unlucky = [answer for answer in asked if answer.status_code != 200]  # their query was on its way
    print(f"{cut} connections cut; {len(asked)} pages, {len(unlucky)} with an error; {browser.connections} streams")
    assert rested == [200, 200]
    assert all(answer.status_code == 503 and "cannot be reached" in answer.text for answer in unlucky)
    assert browser.numbers == list(range(1, browser.last + 1))
    assert set(browser.odd) <= {503}


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.redis
def test_a_launch_is_answered_while_redis_hangs_and_worked_on_afterwards(with_servers):
    web = with_servers.web()
    with_servers.worker(TRAINING)
    first = web.post("/api/v1/runs", json=form(with_servers.settings)).json()["run"]["id"]
    finished(with_servers, first)
    url = with_servers.settings.broker_url
    server = psutil.Process(redis.Redis.from_url(url).info("server")["process_id"])
    server.send_signal(signal.SIGSTOP)
    try:
        seconds, launched = [], []
        for name in ("second", "third"):
            begun = time.monotonic()
            answer = web.post("/api/v1/runs", json=form(with_servers.settings, name=name))
            seconds.append(time.monotonic() - begun)
            assert answer.status_code == 201
            launched.append(answer.json()["run"]["id"])
        begun = time.monotonic()
        assert web.get("/runs").status_code == 200
        seconds.append(time.monotonic() - begun)
    finally:
        server.send_signal(signal.SIGCONT)
    print("Answers while Redis hung:", ", ".join(f"{each:.2f} s" for each in seconds))
    assert max(seconds) < 6
    for run_id in launched:
        finished(with_servers, run_id)
        assert row(with_servers.database, run_id).attempt == 1


def test_a_form_that_is_sent_eight_times_at_once_launches_one_run(installation):
    web = installation.web()
    new = form(installation.settings, name="clicked")
    gate = threading.Barrier(8)

    def click(_):
        gate.wait()
        return web.post("/api/v1/runs", json=new, headers={"Idempotency-Key": "the form's"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(click, range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["run"]["id"] for answer in answers}) == 1
    (run,) = runs(installation.database)
    assert (run.state, run.last_event) == (states.QUEUED, 1)
