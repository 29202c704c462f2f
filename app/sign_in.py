"""Signing in and out, health, and the page of the API."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from app import tokens
from app.answers import answer
from app.auth import Role, require
from app.door import client_address, cookie_name
from app.errors import SignInNeeded
from app.web import database, page, settings

pages = APIRouter(include_in_schema=False)
api = APIRouter()

LOCAL_ADDRESS = re.compile(r"/(?![/\\])[^\x00-\x1f]*")


@pages.get("/healthz", dependencies=[require(Role.ANYONE)])
async def health() -> dict[str, bool]:
    """The server answers. Says nothing of the database: `preflab doctor` does."""
    return {"ok": True}


@pages.get("/login", dependencies=[require(Role.ANYONE)])
def login(request: Request, token: str = "", next: str = "/") -> Response:
    """Sign a browser in with a link's token. A browser that merely looks ahead does not use the token up."""
    target = next if LOCAL_ADDRESS.fullmatch(next) else "/"
    if "prefetch" in (request.headers.get("sec-purpose", "") + request.headers.get("purpose", "")):
        return Response(status_code=503)
    if not token:
        if request.state.identity is not None:
            return RedirectResponse(target, 303)
        return answer(request, SignInNeeded("You are not signed in.", ""))
    throttle, address = request.app.state.throttle, client_address(request)
    throttle.check(address)
    with database(request).write() as session:
        secret = tokens.sign_in(session, token)
    if secret is None:
        if request.state.identity is not None:
            return RedirectResponse(target, 303)  # the link once more, in the browser that has used it
        throttle.failed(address)
        return answer(
            request, SignInNeeded("This link has been used, or is too old.", "`preflab token login` makes another.")
        )
    response = RedirectResponse(target, 303)
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=int(tokens.LIFETIMES[tokens.SESSION]),
        httponly=True,
        samesite="lax",
        secure=settings(request).https,
    )
    return response


@api.post("/sign-out", dependencies=[require(Role.VIEWER)])
def sign_out(request: Request) -> Response:
    """End this browser's session."""
    name = cookie_name(request)
    with database(request).write() as session:
        tokens.sign_out(session, request.cookies.get(name, ""))
    response = JSONResponse({"ok": True})
    response.delete_cookie(name, httponly=True, samesite="lax", secure=settings(request).https)
    return response


@pages.get("/api/openapi.json", dependencies=[require(Role.VIEWER)])
def openapi(request: Request) -> dict[str, Any]:
    schema: dict[str, Any] = request.app.openapi()
    return schema


@pages.get("/api/docs", dependencies=[require(Role.VIEWER)])
def api_docs(request: Request) -> Response:
    """Every route of the API, from the schema."""
    schema = request.app.openapi()
    routes = [
        {
            "method": method.upper(),
            "path": path,
            "summary": verb.get("summary", ""),
            "description": verb.get("description", ""),
        }
        for path, verbs in schema["paths"].items()
        for method, verb in verbs.items()
    ]
    return page(request, "api.html", routes=routes)
