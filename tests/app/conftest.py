"""The application in a test: signed in, or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import tokens
from app.auth import Role
from app.db import Database
from app.main import create_app
from app.settings import Settings

ADDRESS = "http://127.0.0.1:8321"
BY_PAGE = {"Origin": ADDRESS, "X-Preflab": "1"}  # what the pages' own scripts send


@pytest.fixture
def app(settings: Settings, database: Database) -> Iterator[FastAPI]:
    """The whole application on a migrated database."""
    made = create_app(settings)
    yield made
    made.state.database.dispose()


@pytest.fixture
def stranger(app: FastAPI) -> TestClient:
    """A browser that is not signed in."""
    return TestClient(app, base_url=ADDRESS, headers={"Accept": "text/html"})


@pytest.fixture
def browser(app: FastAPI, database: Database) -> TestClient:
    """An admin's browser, whose pages send what ours send."""
    client = TestClient(app, base_url=ADDRESS, headers=BY_PAGE)
    answer = client.get("/login", params={"token": login_token(database)}, follow_redirects=False)
    assert answer.status_code == 303
    return client


@pytest.fixture
def script(app: FastAPI, database: Database) -> TestClient:
    """A runner's script with an API token: no cookie, no Origin."""
    with database.write() as session:
        secret = tokens.create(session, tokens.API, Role.RUNNER, "script")[1]
    return TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {secret}"})


def login_token(database: Database, role: Role = Role.ADMIN, lifetime: float | None = None) -> str:
    with database.write() as session:
        return tokens.create(session, tokens.LOGIN, role, "me", lifetime)[1]
