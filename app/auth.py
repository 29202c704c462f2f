"""Who may do what. Every route names the role that it needs; a test walks all routes and finds none without."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, Request

from app.errors import Forbidden, SignInNeeded


class Role(enum.IntEnum):
    """Each may do what those before it may."""

    ANYONE = 0  # not signed in: the sign-in page, health, static files
    VIEWER = 1  # look at everything
    RUNNER = 2  # upload data; launch, stop, delete runs
    ADMIN = 3  # make and revoke tokens


@dataclass(frozen=True)
class Identity:
    """Whoever sent a request. Put into `request.state.identity` by the middleware (app/door.py)."""

    name: str
    role: Role


def require(role: Role) -> Any:
    """A route's dependency: `dependencies=[require(Role.VIEWER)]`. Raises SignInNeeded or Forbidden."""

    def check(request: Request) -> None:
        identity: Identity | None = getattr(request.state, "identity", None)
        if role == Role.ANYONE:
            return
        if identity is None:
            raise SignInNeeded(
                "You are not signed in.", "Open the link that `preflab up` prints, or send an API token."
            )
        if identity.role < role:
            raise Forbidden(f"This needs the role “{role.name.lower()}”; you are a {identity.role.name.lower()}.")

    check.role = role  # type: ignore[attr-defined] # read by the test that walks the routes
    return Depends(check)
