"""The web server: `python -m app.serve [--parent PID]`. Ends cleanly in under five seconds, streams included."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import migrations, tokens
from app.db import Database
from app.errors import AppError, Unavailable
from app.main import create_app
from app.settings import Settings, load_settings

USAGE = 2  # exit code: trying again would end the same way
GRACE = 3  # seconds that open requests may take to end
PR_SET_PDEATHSIG = 1


class Server(uvicorn.Server):
    """Tells event streams to end before it waits for them."""

    def __init__(self, config: uvicorn.Config, closing: Any) -> None:
        super().__init__(config)
        self._closing = closing

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        await super().shutdown(sockets)


def check(settings: Settings) -> None:
    """Raises Unavailable where the server must not start: a foreign schema, or an open door."""
    database = Database(settings.database)
    try:
        migrations.check(database.engine)
        with database.read() as session:
            somebody = bool(tokens.listing(session))
    finally:
        database.dispose()
    if not settings.loopback and not settings.allowed_hosts:
        raise Unavailable(
            f"{settings.host} is reachable from other machines, and PREFLAB_ALLOWED_HOSTS is empty.",
            "Set it to the names under which browsers reach this server, or leave PREFLAB_HOST at 127.0.0.1.",
        )
    if not settings.loopback and not somebody:
        raise Unavailable(
            f"{settings.host} is reachable from other machines, and nobody can sign in yet.",
            "Make a token first: `preflab token login` for a browser, `preflab token create` for a script.",
        )


def bind(settings: Settings) -> socket.socket:
    """A listening socket. Raises Unavailable with a sentence."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"The port {settings.port} of {settings.host} cannot be used: {error.strerror}.",
            "Another program has it, or may: choose another by PREFLAB_PORT.",
        ) from None
    return listener


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        app,
        access_log=False,  # its lines would hold sign-in links
        log_config=None,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
        server_header=False,
        lifespan="on",
        ws="none",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn ends in order, then raises the signal once more
    Server(config, app.state.closing).run(sockets=[listener])


def end_with(parent: int) -> None:
    """End when the process that started this one ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(0)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m app.serve", description=__doc__)
    arguments.add_argument("--parent", type=int, help="end when this process, which started us, ends")
    given = arguments.parse_args()
    if given.parent is not None:
        end_with(given.parent)
    settings = load_settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s web %(levelname)s %(message)s")
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        check(settings)
        app = create_app(settings)
        listener = bind(settings)  # last: who finds the port open finds a server behind it
    except AppError as error:
        print(f"preflab: {error.message} {error.hint}", file=sys.stderr)
        return USAGE
    serve(app, listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
