"""Lists of runs: filters, order, pages; and few queries however many runs there are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import orjson
import pytest
from sqlalchemy import delete, event, insert, update
from sqlmodel import Session, col

from app.db import Database
from app.experiments import service as experiments
from app.live.overview import Overview
from app.models import Run
from app.runs import queries, states
from app.runs.queries import Filter
from app.system.queries import frame, queue, workers


def add(session: Session, count: int, owner: str = "trial", **values: object) -> None:
    experiment = experiments.get_or_create(session, owner)
    base = {
        "experiment_id": experiment.id, "stage": "sft", "config": {}, "tags": [], "notes": "", "created_at": 1.0,
        "state": states.FINISHED, "priority": 0, "attempt": 1, "beat": 0, "fruitless": 0, "fresh": False, "cursor": 0,
        "cursor_check": 0, "journal_alarm": "", "last_event": 0, "bad_lines": 0, "step": 0, "phase": "", "summary": {},
    }  # fmt: skip
    start = int(time.monotonic_ns())
    session.connection().execute(insert(Run), [{**base, "name": f"run-{start + n}", **values} for n in range(count)])


@contextlib.contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine, "before_cursor_execute", note)


def selects(statements: list[str]) -> int:
    return sum(statement.lstrip().upper().startswith("SELECT") for statement in statements)


def test_the_number_of_queries_does_not_grow_with_the_runs(any_database: Database) -> None:
    found = []
    for more in (3, 300):
        with any_database.write() as session:
            add(session, more, state=states.QUEUED, queued_at=1.0)
        with any_database.read() as session, counted(any_database) as statements:
            queries.list_runs(session, Filter(text="run", sort="loss"))
            queries.active_rows(session)
            frame(session)
            queue(session)
            workers(session)
        found.append(selects(statements))
    assert found[0] == found[1] <= 10


def test_a_page_of_ten_thousand_runs_is_quick(database: Database) -> None:
    with database.write() as session:
        add(session, 10_000, summary={"loss": {"last": 1.5}})
    with database.read() as session:
        began = time.perf_counter()
        page = queries.list_runs(session, Filter(text="run-", sort="loss", page=150))
        took = time.perf_counter() - began
    assert (page.total, page.pages, len(page.rows)) == (10_000, 200, 50)
    assert took < 1.0


def test_filters_let_through_what_they_name(any_database: Database) -> None:
    with any_database.write() as session:
        add(session, 1, name="Alpha", state=states.RUNNING)
        add(session, 1, name="beta", state=states.FAILED)
        add(session, 1, owner="other", name="100%_odd", state=states.QUEUED, queued_at=1.0)
    with any_database.read() as session:

        def names(**wanted: object) -> list[str]:
            return [row["name"] for row in queries.list_runs(session, Filter(**wanted)).rows]  # type: ignore[arg-type]

        assert names() == ["100%_odd", "beta", "Alpha"]
        assert names(text="ALPHA") == ["Alpha"]
        assert names(text="other") == ["100%_odd"]
        assert names(text="0%_o") == ["100%_odd"]
        assert names(text="%") == ["100%_odd"]
        assert names(state="failed") == ["beta"]
        assert names(state="active") == ["100%_odd", "Alpha"]
        assert names(stage="dpo") == []
        assert names(sort="name") == ["100%_odd", "Alpha", "beta"]


def test_runs_are_ordered_by_a_metric_and_those_without_it_come_last(any_database: Database) -> None:
    with any_database.write() as session:
        for name, last in (("high", 2.0), ("low", 0.5), ("lost", None)):
            add(session, 1, name=name, summary={"loss": {"last": last}})
        add(session, 1, name="none")
    with any_database.read() as session:
        rows = queries.list_runs(session, Filter(sort="loss")).rows
    assert [row["name"] for row in rows][:2] == ["low", "high"]
    assert [row["loss"] for row in rows] == [0.5, 2.0, None, None]


def test_more_active_runs_than_a_list_follows_push_none_out_as_gone(
    any_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_ACTIVE", 3)
    overview = Overview(any_database)

    def told() -> dict[int, dict[str, object]]:
        before = overview.version
        overview.update(overview.read())
        return {
            row["id"]: row for row in map(orjson.loads, overview.after(before) if overview.version > before else [])
        }

    with any_database.write() as session:
        add(session, 1, state=states.RUNNING)
        add(session, 2, state=states.QUEUED, queued_at=1.0)
    oldest = min(told())
    for _ in range(3):
        with any_database.write() as session:
            add(session, 1, state=states.QUEUED, queued_at=2.0)
        assert not any("gone" in row for row in told().values())
    assert oldest in overview._rows and len(overview._rows) == 3  # the running one, and the newest
    with any_database.write() as session:
        session.exec(update(Run).where(col(Run.id) == oldest).values(state=states.FINISHED))
    assert told()[oldest]["state"] == states.FINISHED
    newest = max(overview._rows)
    with any_database.write() as session:
        session.exec(delete(Run).where(col(Run.id) == newest))
    assert told()[newest] == {"id": newest, "gone": True}


@pytest.mark.parametrize("page", [-3, 0, 2, 10**6])
def test_a_page_that_is_not_there_gives_the_nearest(database: Database, page: int) -> None:
    with database.write() as session:
        add(session, 3)
    with database.read() as session:
        found = queries.list_runs(session, Filter(page=page), size=2)
    assert found.filter.page in {1, 2} and found.rows


def test_the_address_of_a_filter_says_only_what_differs() -> None:
    assert Filter(text="a b", state="failed").query(page=2) == "?q=a+b&state=failed&page=2"
    assert Filter().query() == "?"


def test_the_queue_is_in_the_order_in_which_runs_are_taken(database: Database) -> None:
    with database.write() as session:
        add(session, 1, name="late", state=states.QUEUED, queued_at=3.0)
        add(session, 1, name="early", state=states.QUEUED, queued_at=2.0)
        add(session, 1, name="urgent", state=states.QUEUED, queued_at=9.0, priority=5)
        add(session, 1, name="waits", state=states.WAITING)
    with database.read() as session:
        assert [row["name"] for row in queue(session)] == ["urgent", "early", "late", "waits"]
        late = session.get(Run, 1)
        assert late is not None and queries.queue_position(session, late) == 3
