"""The queue and the workers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.auth import Role, require
from app.system import queries
from app.web import database, page

pages = APIRouter(dependencies=[require(Role.VIEWER)])
api = APIRouter(tags=["system"])


@pages.get("/workers")
def workers_page(request: Request) -> Response:
    with database(request).read() as session:
        return page(request, "system/workers.html", workers=queries.workers(session), queue=queries.queue(session))


@api.get("/workers", dependencies=[require(Role.VIEWER)])
def list_workers(request: Request) -> dict[str, Any]:
    """Workers that were seen, with their devices and what runs on them."""
    with database(request).read() as session:
        return {"rows": queries.workers(session)}


@api.get("/queue", dependencies=[require(Role.VIEWER)])
def list_queue(request: Request) -> dict[str, Any]:
    """Runs that wait, in the order in which they will run."""
    with database(request).read() as session:
        return {"rows": queries.queue(session)}


@api.get("/frame", dependencies=[require(Role.VIEWER)])
def show_frame(request: Request) -> dict[str, Any]:
    """The counts beside every page."""
    with database(request).read() as session:
        return queries.frame(session)
