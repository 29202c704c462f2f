"""The relay: each whole line of a journal is in the database exactly once, whoever dies and whoever else relays."""

import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.worker.helpers import claim, events, launch, row, shipped_exactly_once
from training.journal import MAX_LINE, Journal
from training.rundir import RunDir
from worker.relay import Relay, ship_all, summarised


@pytest.fixture
def run(any_database, settings):
    """A claimed run with an empty journal: its database, its id and its directory."""
    return make_run(any_database, settings)


@pytest.fixture
def sqlite_run(database, settings):
    return make_run(database, settings)


def make_run(database, settings):
    run_id = launch(database, settings)
    claim(database)
    run_dir = RunDir(settings.run_folder(run_id))
    run_dir.create()
    return database, run_id, run_dir


def write_steps(run_dir, first, last, attempt=1):
    journal = Journal(run_dir.journal, attempt)
    journal.seq = first
    for step in range(first, last):
        journal.metrics(step, loss=1.0 / (step + 1), tokens=step)
    journal.close()


def test_lines_become_numbered_events_and_the_row_tells_the_run_at_a_glance(run, settings):
    database, run_id, run_dir = run
    journal = Journal(run_dir.journal, 1)
    journal.status("training", steps=20)
    journal.metrics(1, loss=3.5, lr=0.1)
    journal.metrics(2, loss=2.5, lr=0.2)
    journal.progress("training", 2, 20, "steps")
    journal.log("Hello.")
    assert ship_all(database, run_id, run_dir.journal) == run_dir.journal.stat().st_size
    found = row(database, run_id)
    assert (found.step, found.total_steps, found.phase) == (2, 20, "training")
    assert found.summary["loss"] == {"last": 2.5, "step": 2, "min": 2.5, "max": 3.5}
    assert found.progress["done"] == 2
    assert [json.loads(event.body) for event in events(database, run_id, "metrics")] == [
        {"loss": 3.5, "lr": 0.1},
        {"loss": 2.5, "lr": 0.2},
    ]
    assert json.loads(events(database, run_id, "log")[0].body) == {"level": "info", "message": "Hello."}
    assert found.last_event == events(database, run_id)[-1].number
    assert shipped_exactly_once(database, settings, run_id)


def test_nothing_new_ships_nothing(run):
    database, run_id, run_dir = run
    relay = Relay(database, run_id, run_dir.journal)
    assert relay.ship() == 0  # no journal yet
    write_steps(run_dir, 0, 3)
    assert relay.ship() > 0
    before = row(database, run_id).model_dump()
    assert relay.ship() == 0
    assert row(database, run_id).model_dump() == before


def test_a_torn_last_line_is_held_back(run):
    database, run_id, run_dir = run
    write_steps(run_dir, 0, 1)
    whole = run_dir.journal.read_bytes()
    run_dir.journal.write_bytes(whole + whole[:20])
    ship_all(database, run_id, run_dir.journal)
    assert len(events(database, run_id, "metrics")) == 1
    assert row(database, run_id).cursor == len(whole)
    with run_dir.journal.open("ab") as file:
        file.write(whole[20:])
    ship_all(database, run_id, run_dir.journal)
    assert len(events(database, run_id, "metrics")) == 2
    assert not events(database, run_id, "bad_line")


GARBAGE = [
    b"garbage",
    b"\x00\x01\x02",
    b"[" * 10_000,
    b'{"attempt": 1}',
    b'{"attempt":99999999999,"seq":0,"time":1,"kind":"log"}',
    b'{"attempt":1,"seq":0,"time":1,"kind":"metrics","step":1,"values":{"loss":1e400}}',
    b'{"attempt":1,"seq":0,"time":1,"kind":"log","message":"\\ud800"}',
    b"x" * (MAX_LINE + 10),
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_a_line_that_cannot_be_read_is_quarantined_and_counted(run, line):
    database, run_id, run_dir = run
    write_steps(run_dir, 0, 1)
    with run_dir.journal.open("ab") as file:
        file.write(line + b"\n")
    write_steps(run_dir, 1, 2)
    ship_all(database, run_id, run_dir.journal)
    assert row(database, run_id).bad_lines == 1
    bad = json.loads(events(database, run_id, "bad_line")[0].body)
    assert bad["reason"]
    assert len(bad["text"]) <= 400
    assert [event.step for event in events(database, run_id, "metrics")] == [0, 1]


def test_hostile_texts_reach_the_database_as_texts(run):
    database, run_id, run_dir = run
    journal = Journal(run_dir.journal, 1)
    journal.status("nul \0 and " + "x" * 500, steps="many")
    journal.log("nul \0, <script>, \ud800 and 🙂")
    journal.progress("nul \0", 1, None)
    ship_all(database, run_id, run_dir.journal)
    found = row(database, run_id)
    assert found.phase.startswith("nul  and xxx")
    assert len(found.phase) == 200
    assert found.total_steps is None
    assert "\0" in found.progress["task"]
    assert "<script>, ? and 🙂" in json.loads(events(database, run_id, "log")[0].body)["message"]


def test_numbers_that_are_none_are_stored_as_valid_json(run):
    database, run_id, run_dir = run
    journal = Journal(run_dir.journal, 1)
    journal.metrics(1, loss=2.0)
    journal.metrics(2, loss=math.nan, norm=math.inf)
    ship_all(database, run_id, run_dir.journal)
    stored = events(database, run_id, "metrics")[1].body
    assert json.loads(stored, parse_constant=pytest.fail) == {"loss": "NaN", "norm": "Infinity"}
    summary = row(database, run_id).summary
    assert summary["loss"] == {"last": None, "step": 2, "min": 2.0, "max": 2.0, "not_finite": "NaN"}
    assert summary["norm"] == {"last": None, "step": 2, "min": None, "max": None, "not_finite": "Infinity"}


def test_a_summary_goes_on_after_a_number_that_is_none():
    first = summarised(None, "NaN", 1)
    assert summarised(first, 4.0, 2) == {"last": 4.0, "step": 2, "min": 4.0, "max": 4.0}


@pytest.mark.parametrize("fault", ["truncated", "replaced", "gone"])
def test_a_journal_that_was_tampered_with_raises_the_alarm_and_is_not_read_again(run, fault):
    database, run_id, run_dir = run
    write_steps(run_dir, 0, 20)
    ship_all(database, run_id, run_dir.journal)
    before = len(events(database, run_id))
    if fault == "truncated":
        os.truncate(run_dir.journal, 100)
    elif fault == "gone":
        run_dir.journal.unlink()
    else:
        run_dir.journal.unlink()
        write_steps(run_dir, 1000, 1050)
    assert ship_all(database, run_id, run_dir.journal) == 0
    found = row(database, run_id)
    assert "read" in found.journal_alarm
    assert len(events(database, run_id)) == before


def test_the_alarm_ends_where_the_journal_is_put_back(run):
    database, run_id, run_dir = run
    write_steps(run_dir, 0, 20)
    ship_all(database, run_id, run_dir.journal)
    content = run_dir.journal.read_bytes()
    os.truncate(run_dir.journal, 100)
    ship_all(database, run_id, run_dir.journal)
    run_dir.journal.write_bytes(content)
    write_steps(run_dir, 20, 30)
    ship_all(database, run_id, run_dir.journal)
    assert row(database, run_id).journal_alarm == ""
    assert len(events(database, run_id, "metrics")) == 30


RELAY = """
import sys
from pathlib import Path
from app.db import Database
from worker.relay import ship_all
url, run_id, journal = sys.argv[1:]
ship_all(Database(url), int(run_id), Path(journal))
"""


def relay_process(database, run_id, run_dir, failpoint=None):
    url = database.engine.url.render_as_string(hide_password=False)
    environment = {**os.environ, **({"PREFLAB_FAILPOINT": failpoint} if failpoint else {})}
    command = [sys.executable, "-c", RELAY, url, str(run_id), str(run_dir.journal)]
    return subprocess.Popen(command, env=environment)


@pytest.mark.parametrize(("failpoint", "shipped"), [("before_relay_commit", 0), ("after_relay_commit", 50)])
def test_a_relay_that_dies_around_its_commit_repeats_and_loses_nothing(run, settings, failpoint, shipped):
    database, run_id, run_dir = run
    write_steps(run_dir, 0, 50)
    assert relay_process(database, run_id, run_dir, failpoint).wait() == 137
    assert len(events(database, run_id, "metrics")) == shipped
    write_steps(run_dir, 50, 60)
    ship_all(database, run_id, run_dir.journal)
    assert shipped_exactly_once(database, settings, run_id)


def test_two_relays_at_once_give_exact_rows(run, settings):
    database, run_id, run_dir = run
    write_steps(run_dir, 0, 600)

    def relay(_):
        relay = Relay(database, run_id, run_dir.journal)
        while relay.ship(limit=MAX_LINE):
            pass

    journal = Journal(run_dir.journal, 1)
    journal.seq = 600
    with ThreadPoolExecutor(3) as pool:
        relays = [pool.submit(relay, number) for number in range(3)]
        for step in range(600, 1200):
            journal.metrics(step, loss=1.0)
        for each in relays:
            each.result()
    ship_all(database, run_id, run_dir.journal)
    assert shipped_exactly_once(database, settings, run_id)


def test_states_and_lines_share_one_numbering(run, settings):
    from app.runs import lease

    database, run_id, run_dir = run
    write_steps(run_dir, 0, 3)
    ship_all(database, run_id, run_dir.journal)
    with database.write() as session:
        lease.finish(session, run_id, 1)
    assert [event.kind for event in events(database, run_id)] == ["state", "state", *["metrics"] * 3, "state"]
    assert shipped_exactly_once(database, settings, run_id)


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"\n", b'{"kind":', *GARBAGE[:7]])), max_size=8)
)
def test_any_bytes_are_shipped_line_by_line_and_stop_nothing(sqlite_run, pieces):
    database, run_id, run_dir = sqlite_run
    with run_dir.journal.open("ab") as file:
        file.writelines(pieces)
        file.write(b"\n")
    ship_all(database, run_id, run_dir.journal)
    assert row(database, run_id).cursor == run_dir.journal.stat().st_size
    assert [event.number for event in events(database, run_id)] == list(range(1, row(database, run_id).last_event + 1))


def test_a_relay_without_new_lines_asks_the_database_nothing(run):
    database, run_id, run_dir = run
    relay = Relay(database, run_id, run_dir.journal)
    asked = []
    sqlalchemy.event.listen(database.engine, "before_cursor_execute", lambda *details: asked.append(details[2]))
    write_steps(run_dir, 0, 3)
    assert relay.ship() > 0
    assert asked
    asked.clear()
    assert relay.ship() == 0
    assert asked == []


def test_what_a_retry_cleared_stays_cleared_whatever_a_relay_remembers(run, settings):
    from app.runs import lease, service

    database, run_id, run_dir = run
    relay = Relay(database, run_id, run_dir.journal)
    write_steps(run_dir, 0, 3)
    assert relay.ship() > 0
    with database.write() as session:
        lease.stopped(session, run_id, 1)
    with database.write() as session:
        service.retry(session, run_id)
    journal = Journal(run_dir.journal, 1)
    journal.seq = 3
    journal.log("A last word.")
    assert relay.ship() > 0
    found = row(database, run_id)
    assert (found.step, found.summary) == (0, {})
    assert shipped_exactly_once(database, settings, run_id)


def test_a_run_that_was_deleted_ships_nothing(run):
    database, run_id, run_dir = run
    write_steps(run_dir, 0, 3)
    assert ship_all(database, run_id + 1000, run_dir.journal) == 0
