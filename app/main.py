"""Assembly only: settings, database and doorbell, the door, the rooms, the error answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from app import answers, assets, sign_in
from app.auth import Role
from app.datasets import routes as datasets
from app.db import Database
from app.door import Door, Throttle
from app.doorbell import Doorbell
from app.experiments import routes as experiments
from app.live import routes as live
from app.resources import resource
from app.runs import routes as runs
from app.settings import Settings, load_settings
from app.system import routes as system
from app.winrates import routes as winrates

PAGES = (sign_in.pages, assets.router, runs.pages, experiments.pages, datasets.pages, winrates.pages, system.pages)
APIS = (sign_in.api, runs.api, experiments.api, live.api, datasets.api, winrates.api, system.api)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The web application. The database must be at this version's schema (app/migrations.py)."""
    settings = settings or load_settings()
    doorbell = Doorbell(settings)
    database = Database(settings.database, ring=doorbell.ring)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        doorbell.close()
        database.dispose()

    app = FastAPI(title="Preflab", version="0.1.0", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.settings = settings
    app.state.database = database
    app.state.throttle = Throttle()
    app.state.closing = asyncio.Event()  # set when the server is told to end: event streams end then
    answers.install(app)
    for router in PAGES:
        refuse_routes_without_a_role(router)
        app.include_router(router, include_in_schema=False)
    for router in APIS:
        refuse_routes_without_a_role(router)
        app.include_router(router, prefix="/api/v1")
    app.mount("/static", assets.CachedFiles(directory=resource("static")), name="static")
    app.add_middleware(Door, settings=settings, database=database, throttle=app.state.throttle)
    return app


def role_of(route: APIRoute) -> Role | None:
    """The role that a route demands, or None where it was forgotten."""
    roles = [getattr(depends.dependency, "role", None) for depends in route.dependencies]
    return max((role for role in roles if role is not None), default=None)


def refuse_routes_without_a_role(router: APIRouter) -> None:
    """Deny by default: an address that nobody thought about does not get served. Raises TypeError."""
    for route in router.routes:
        if not isinstance(route, APIRoute) or role_of(route) is None:
            raise TypeError(f"The route {getattr(route, 'path', route)} does not say who may use it: require(Role...).")
