"""The door: who is asking, and may a browser have been tricked into asking? One pure ASGI layer around the app.

A request comes in if its Host is ours; a write that a cookie identifies also needs our own Origin and our header,
which no other site can send. Scripts with an API token need neither. Docs: docs/security.md.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections import deque

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tokens
from app.answers import answer, understand
from app.auth import Identity
from app.db import Database
from app.errors import AppError, Forbidden, SignInNeeded, TooLarge, TooMany
from app.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD"})
BODY_TYPES = frozenset({"application/json", "application/octet-stream", "application/x-ndjson"})
SMALL_BODY = 2 << 20  # bytes
UPLOADS = ("/api/v1/datasets/", "/api/v1/experiments/")  # where a PUT's body is a file
OWN_HEADER = "X-Preflab"
OPEN_PATHS = ("/static/", "/healthz")  # these never ask who it is
HOST = re.compile(r"(?P<name>[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class WrongHost(AppError):
    """The request was meant for another server, or a foreign name was made to point here."""

    code = "wrong_host"


class Door:
    """Wraps the whole application; answers by itself what may not come in."""

    def __init__(self, app: ASGIApp, settings: Settings, database: Database, throttle: Throttle) -> None:
        self.app = app
        self.settings = settings
        self.database = database
        self.throttle = throttle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        request.state.identity = None
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                secure(message)
            await send(message)

        try:
            check_host(request, self.settings)
            by_cookie = await self._identify(request)
            if request.method not in SAFE_METHODS:
                check_write(request, by_cookie=by_cookie, https=self.settings.https)
            await self.app(scope, limited(receive, self._limit(request)), guarded_send)
        except ClientDisconnect:
            return  # nobody is left to answer
        except WrongHost as error:  # no page: its links would be drawn from the wrong name
            await JSONResponse(error.as_json(), error.status)(scope, receive, guarded_send)
        except Exception as error:  # noqa: BLE001 - the last place where it can become an answer
            failure = understand(error)
            if not started:
                await answer(request, failure)(scope, receive, guarded_send)

    async def _identify(self, request: Request) -> bool:
        """Put whoever it is, and by what, into the request's state. True if a cookie said so."""
        if request.scope["path"].startswith(OPEN_PATHS):
            return False
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            address = client_address(request)
            self.throttle.check(address)
            request.state.credential = secret.strip(), tokens.API
            request.state.identity = await run_in_threadpool(self._look_up, *request.state.credential)
            if request.state.identity is None:
                self.throttle.failed(address)
                raise SignInNeeded("This API token is unknown or revoked.", "`preflab token create` makes one.")
            return False
        cookie = request.cookies.get(cookie_name(request))
        if cookie:
            request.state.credential = cookie, tokens.SESSION
            request.state.identity = await run_in_threadpool(self._look_up, *request.state.credential)
        return request.state.identity is not None

    def _look_up(self, secret: str, kind: str) -> Identity | None:
        with self.database.read() as session:
            return tokens.identify(session, secret, kind)

    def _limit(self, request: Request) -> int:
        is_upload = request.method == "PUT" and request.scope["path"].startswith(UPLOADS)
        return self.settings.upload_max_bytes if is_upload else SMALL_BODY


def check_host(request: Request, settings: Settings) -> None:
    """The name that the browser believes to be talking to is one of ours, or a page elsewhere rebound its name.

    Any port will do: an SSH tunnel may bring another one. Raises WrongHost.
    """
    host = request.headers.get("host", "").lower()
    parts = HOST.fullmatch(host)
    allowed = {entry.lower() for entry in settings.allowed_hosts}
    if parts and (is_loopback(parts["name"]) or parts["name"] in allowed or host in allowed):
        return
    raise WrongHost(
        f"This server does not answer under the name “{host[:100]}”.",
        "Use the address that `preflab up` printed, or add the name to PREFLAB_ALLOWED_HOSTS.",
    )


def is_loopback(name: str) -> bool:
    """No page elsewhere can have such a name."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def check_write(request: Request, *, by_cookie: bool, https: bool) -> None:
    """A page of another site can make a browser send its cookie, but not our Origin, nor a header of ours."""
    headers = request.headers
    origin, host = headers.get("origin"), headers.get("host", "")
    own = f"{'https' if https else 'http'}://{host}"
    if origin is not None and origin != own:
        raise Forbidden(f"This request came from another site ({origin[:100]}).", f"This server is {own}.")
    if by_cookie:
        if origin is None and headers.get("sec-fetch-site") != "same-origin":
            raise Forbidden("This request does not say which site it came from.", "Scripts use an API token.")
        if headers.get(OWN_HEADER) != "1":
            raise Forbidden(f"This request lacks the header {OWN_HEADER}: 1.", "Scripts use an API token.")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if (has_body or kind) and kind not in BODY_TYPES:
        raise AppError(
            f"A request's body cannot be “{kind[:60] or 'of no type'}” here.",
            "Send application/json, or a file as application/octet-stream.",
        )


def limited(receive: Receive, most: int) -> Receive:
    """A receive that counts what came, whatever Content-Length said. Raises TooLarge."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise TooLarge(f"The request is over its limit of {most:,} bytes.", "PREFLAB_UPLOAD_MAX_BYTES is uploads'.")
        return message

    return counted


def secure(message: Message) -> None:
    """Headers that every answer carries. What a route says of its own caching stands."""
    headers = MutableHeaders(scope=message)
    for name, value in SECURITY_HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "private, no-cache")


def cookie_name(request: Request) -> str:
    """One cookie a port: browsers share them between the ports of a machine, and each may be another Preflab."""
    parts = HOST.fullmatch(request.headers.get("host", "").lower())
    return f"preflab_{parts['port'] if parts and parts['port'] else 'session'}"


def client_address(request: Request) -> str:
    return request.client.host if request.client else ""


class Throttle:
    """At most `most` failed tries a client and `window` seconds."""

    def __init__(self, most: int = 20, window: float = 60.0) -> None:
        self.most = most
        self.window = window
        self._failures: dict[str, deque[float]] = {}

    def check(self, address: str) -> None:
        """Raises TooMany."""
        times = self._failures.get(address)
        while times and times[0] <= time.monotonic() - self.window:
            times.popleft()
        if times is not None and not times:
            del self._failures[address]
        elif times and len(times) >= self.most:
            raise TooMany("Too many wrong tokens came from this address.", "Wait a minute, then try again.")

    def failed(self, address: str) -> None:
        if len(self._failures) >= 10_000:  # a flood from many addresses must not fill the memory
            self._failures.clear()
        self._failures.setdefault(address, deque(maxlen=self.most)).append(time.monotonic())
