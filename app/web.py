"""What every room's routes use: the database, the settings, and pages."""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request
from fastapi.templating import Jinja2Templates
from markupsafe import Markup, escape
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from app import units
from app.assets import static_url
from app.db import Database
from app.resources import resource
from app.settings import Settings
from app.system.queries import frame


def marked(sentence: str) -> Markup:
    """A sentence whose `commands` stand in backticks, as HTML."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


templates = Jinja2Templates(directory=resource("templates"))
templates.env.globals["static"] = static_url
templates.env.filters.update(short=units.short, in_bytes=units.in_bytes, duration=units.duration, metric=units.metric)
templates.env.filters["marked"] = marked
templates.env.filters["percent"] = units.percent
templates.env.trim_blocks = templates.env.lstrip_blocks = True


def database(request: Request) -> Database:
    found: Database = request.app.state.database
    return found


def settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a page. Templates receive ready values and decide nothing; `identity` and `frame` are always of them."""
    values.setdefault("identity", getattr(request.state, "identity", None))
    values.setdefault("frame", _frame(request) if values["identity"] is not None else None)
    return templates.TemplateResponse(request, template, values, status_code=status)


def _frame(request: Request) -> dict[str, Any] | None:
    """What stands beside every page; None where the database is away, since a page must say so."""
    try:
        with database(request).read() as session:
            return frame(session)
    except SQLAlchemyError:
        return None
