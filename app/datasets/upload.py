"""A request's raw body as a file: streamed to the disk, and gone when it has been taken in, or not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.datasets.service import BLOCK, arrival
from app.errors import TooLarge
from app.web import settings


@contextlib.asynccontextmanager
async def uploaded(request: Request, filename: str) -> AsyncIterator[Path]:
    """The whole body, under the name that messages call it. Raises TooLarge, Unavailable."""
    expected = int(request.headers.get("content-length", "0"))
    most = settings(request).upload_max_bytes
    if expected > most:
        raise TooLarge(f"The file is over the limit of {most:,} bytes.", "PREFLAB_UPLOAD_MAX_BYTES raises it.")
    with arrival(settings(request), filename, expected) as coming:
        waiting = bytearray()
        async for block in request.stream():
            waiting += block
            if len(waiting) >= BLOCK:
                await run_in_threadpool(coming.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(coming.write, bytes(waiting))
        await run_in_threadpool(coming.finish)
        yield coming.path
