"""Installations: the embedded one (SQLite and a queue of files), and the one with real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app import migrations
from app.settings import Settings
from tests.faults.installation import Installation

QUICK = {
    "beat_seconds": 0.2,
    "lease_seconds": 3.0,
    "ring_seconds": 0.5,
    "stop_grace_seconds": 10.0,
    "threads": 1,
}
SERVERS = pytest.param("postgres and redis", marks=[pytest.mark.postgres, pytest.mark.redis])


@pytest.fixture
def embedded(settings: Settings) -> Iterator[Installation]:
    yield from _installation(settings.model_copy(update=QUICK))


@pytest.fixture
def with_servers(settings: Settings, postgres_url: str, redis_url: str) -> Iterator[Installation]:
    yield from _installation(
        settings.model_copy(update={**QUICK, "database_url": postgres_url, "broker_url": redis_url})
    )


@pytest.fixture(params=["embedded", SERVERS])
def installation(request: pytest.FixtureRequest) -> Installation:
    """Once embedded, once with Postgres and Redis."""
    found: Installation = request.getfixturevalue("embedded" if request.param == "embedded" else "with_servers")
    return found


def _installation(settings: Settings) -> Iterator[Installation]:
    settings.__dict__.pop("database", None)  # the copy's own URL, not the original's
    made = Installation(settings, settings.database)
    migrations.upgrade(made.database.engine)
    try:
        yield made
    finally:
        made.close()
