"""Every error as an answer: one JSON shape under /api, a page for browsers. No traceback reaches either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from app.database_errors import from_database, unexpected
from app.errors import AppError, Forbidden, Invalid, NotAllowed, NotFound, SignInNeeded, TooLarge
from app.web import page
from training.config import NO_TEXT


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
    return request.scope["path"].startswith("/api/v1/") or "text/html" not in request.headers.get("accept", "text/html")


def _next(request: Request) -> str:
    """Where to go on after signing in."""
    path: str = request.scope["path"]
    if request.method != "GET" or path == "/login":
        return "/"
    query = request.scope["query_string"].decode("latin-1")
    return path + (f"?{query}" if query else "")


def understand(error: Exception) -> AppError:
    """Any exception as one that a person can read."""
    if isinstance(error, AppError):
        return error
    if isinstance(error, HTTPException):
        cause = error.__cause__  # FastAPI wraps what goes wrong while it reads a body
        return cause if isinstance(cause, AppError) else _from_http(error)
    if isinstance(error, RequestValidationError):
        problems = error.errors()
        if any(problem["loc"][0] == "path" for problem in problems):
            return NotFound("There is no such page.", "Check the address.")
        return _from_validation(problems)
    if isinstance(error, (DBAPIError, TimeoutError)):
        return from_database(error)
    if isinstance(error, OverflowError):  # SQLite's numbers have 64 bits
        return NotFound("There is nothing of so large a number.", "Check the address.")
    return unexpected(error)


def _from_http(error: HTTPException) -> AppError:
    known: dict[int, AppError] = {
        400: AppError(
            "The request's body cannot be read.", "Send JSON in UTF-8, neither deep nor with endless numbers."
        ),
        403: Forbidden(str(error.detail)),
        404: NotFound("There is no such page.", "Check the address."),
        405: NotAllowed("This address does not take this method.", "/api/docs lists what there is."),
        413: TooLarge("The request is too large."),
    }
    return known.get(error.status_code, AppError(str(error.detail)))


def _from_validation(problems: Sequence[Any]) -> Invalid:
    """A request's bad parameters, one sentence each, by field."""
    fields: dict[str, str] = {}
    for problem in problems:
        if problem["type"] == "json_invalid":
            return Invalid(f"The request's body is not JSON: {problem.get('ctx', {}).get('error', problem['msg'])}.")
        place = [str(part) for part in problem["loc"] if part not in {"body", "query", "path", "header"}]
        sentence = NO_TEXT if problem["type"] == "string_unicode" else f"{problem['msg']}."
        fields.setdefault(".".join(place) or "body", sentence)
    return Invalid(" ".join(f"{name}: {message}" for name, message in fields.items()), fields=fields)
