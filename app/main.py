"""Assembly only: settings, database and doorbell, the door, the rooms, the error answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from app.db import Database
from app.doorbell import Doorbell
from app.settings import Settings, load_settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The web application. The database must be at this version's schema (app/migrations.py)."""
    settings = settings or load_settings()
    doorbell = Doorbell(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        doorbell.close()
        app.state.database.dispose()

    app = FastAPI(title="Preflab", version="0.1.0", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.settings = settings
    app.state.database = Database(settings.database, ring=doorbell.ring)
    return app
