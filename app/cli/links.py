"""Addresses that a person opens."""

from __future__ import annotations

import os

import orjson

from app.settings import Settings


def shown_address(settings: Settings, bound: str) -> str:
    """Where a browser finds the server that listens on `bound`: the first allowed host, else this machine."""
    if settings.loopback:
        return bound
    scheme, port = "https" if settings.https else "http", bound.rpartition(":")[2]
    host = settings.allowed_hosts[0] if settings.allowed_hosts else "127.0.0.1"
    return f"{scheme}://{host}" if settings.https or ":" in host else f"{scheme}://{host}:{port}"


def server_address(settings: Settings) -> str:
    """Where the server of this home listens: what a running `preflab up` noted, else what the settings say."""
    noted = _noted(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return noted or f"http://{host}:{settings.port}"


def _noted(settings: Settings) -> str:
    try:
        holder = orjson.loads((settings.home / "lock").read_bytes())
        os.kill(holder["pid"], 0)
        return str(holder["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
