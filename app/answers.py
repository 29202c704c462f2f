"""Every error as an answer: one JSON shape under /api, a page for browsers. No traceback reaches either."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from app.errors import AppError, Conflict, Forbidden, Invalid, NotFound, SignInNeeded, TooLarge, Unavailable
from app.web import page

log = logging.getLogger(__name__)


class Unexpected(AppError):
    """A mistake of ours. The log has the traceback under the id that the message names."""

    status = 500
    code = "unexpected"


class NotAllowed(AppError):
    """The address exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


def install(app: FastAPI) -> None:
    """Answer what routes raise. What escapes them otherwise, the door answers (app/door.py)."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(request, understand(error))

    for kind in (AppError, HTTPException, RequestValidationError, DBAPIError, TimeoutError):
        app.add_exception_handler(kind, handle)


def answer(request: Request, error: AppError) -> Response:
    """JSON for programs and for a page's own scripts, a page for a browser's address bar."""
    headers = {"Retry-After": "60"} if error.status == 429 else {}
    if wants_json(request):
        return JSONResponse(error.as_json(), status_code=error.status, headers=headers)
    template = "sign_in.html" if isinstance(error, SignInNeeded) else "error.html"
    response = page(request, template, status=error.status, error=error, next=_next(request))
    response.headers.update(headers)
    return response


def wants_json(request: Request) -> bool:
    return request.scope["path"].startswith("/api/") or "text/html" not in request.headers.get("accept", "text/html")


def _next(request: Request) -> str:
    """Where to go on after signing in."""
    if request.method != "GET" or request.scope["path"] == "/login":
        return "/"
    query = request.scope["query_string"].decode("latin-1")
    return request.scope["path"] + (f"?{query}" if query else "")


def understand(error: BaseException) -> AppError:
    """Any exception as one that a person can read."""
    if isinstance(error, AppError):
        return error
    if isinstance(error, HTTPException):
        cause = error.__cause__  # FastAPI wraps what goes wrong while it reads a body
        return cause if isinstance(cause, AppError) else _from_http(error)
    if isinstance(error, RequestValidationError):
        return from_validation(error.errors())
    if isinstance(error, (DBAPIError, TimeoutError)):
        return from_database(error)
    number = secrets.token_hex(4)
    log.error("Unexpected error %s", number, exc_info=error)
    return Unexpected(
        f"Something went wrong that should not have (error {number}).",
        "The server's log says more under this number. Your runs are not affected.",
    )


def _from_http(error: HTTPException) -> AppError:
    known: dict[int, AppError] = {
        403: Forbidden(str(error.detail)),
        404: NotFound("There is no such page.", "Check the address."),
        405: NotAllowed("This address does not take this method.", "/api/docs lists what there is."),
        413: TooLarge("The request is too large."),
    }
    return known.get(error.status_code, AppError(str(error.detail)))


def from_validation(problems: Sequence[Any]) -> Invalid:
    """A request's bad parameters, one sentence each, by field."""
    fields: dict[str, str] = {}
    for problem in problems:
        if problem["type"] == "json_invalid":
            return Invalid(f"The request's body is not JSON: {problem.get('ctx', {}).get('error', problem['msg'])}.")
        place = [str(part) for part in problem["loc"] if part not in {"body", "query", "path", "header"}]
        fields.setdefault(".".join(place) or "body", f"{problem['msg']}.")
    return Invalid(" ".join(f"{name}: {message}" for name, message in fields.items()), fields=fields)


def from_database(error: Exception) -> AppError:
    """What ails the database, and what to do about it."""
    text = str(getattr(error, "orig", None) or error)
    lowered = text.lower()
    for sign, message, hint in DATABASE_TROUBLE:
        if sign in lowered:
            return Unavailable(message, hint)
    if type(error).__name__ == "IntegrityError":
        return Conflict("Somebody else changed the same thing at the same moment.", "Look again, then try again.")
    if getattr(error, "connection_invalidated", False) or type(error).__name__ in {"OperationalError", "TimeoutError"}:
        log.warning("The database: %s", text)
        return Unavailable(
            "The database cannot be reached.",
            "Nothing is lost: running trainings go on, and write what they did once it is back. Check that it runs.",
        )
    number = secrets.token_hex(4)
    log.error("Unexpected error %s", number, exc_info=error)
    return Unexpected(f"The database refused a statement (error {number}).", "The server's log says more.")


DATABASE_TROUBLE = (
    ("database is locked", "The database is busy: another process has been writing for seconds.", "Try again."),
    (
        "readonly database",
        "The database is read-only.",
        "Check who owns the home folder and its files, and that the disk is not mounted read-only.",
    ),
    (
        "read-only transaction",
        "The database is read-only.",
        "Point PREFLAB_DATABASE_URL at the primary, not at a replica.",
    ),
    ("disk is full", "The disk is full: the database cannot be written.", "Free some space, then try again."),
    ("no space left", "The disk is full: the database cannot be written.", "Free some space, then try again."),
    (
        "unable to open database",
        "The database's file cannot be opened.",
        "Check that the home folder exists and is yours.",
    ),
    ("malformed", "The database's file is damaged.", "Restore it from a backup: `preflab db backup` makes them."),
    ("no such table", "The database has no tables yet.", "Run `preflab db upgrade`."),
    ("undefinedtable", "The database has no tables yet.", "Run `preflab db upgrade`."),
)
