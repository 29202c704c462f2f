"""What every room's routes use: the database, the settings, and pages."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.templating import Jinja2Templates
from starlette.responses import Response

from app.assets import static_url
from app.db import Database
from app.resources import resource
from app.settings import Settings

templates = Jinja2Templates(directory=resource("templates"))
templates.env.globals["static"] = static_url


def database(request: Request) -> Database:
    found: Database = request.app.state.database
    return found


def settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a page. Templates receive ready values and decide nothing; `identity` is always one of them."""
    values.setdefault("identity", getattr(request.state, "identity", None))
    return templates.TemplateResponse(request, template, values, status_code=status)
