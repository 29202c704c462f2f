"""Static files. An address that carries its content's hash is kept for a year; any other is asked about each time."""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.auth import Role, require
from app.resources import resource
from app.settings import Settings
from training.rundir import write_atomically

FOREVER = "public, max-age=31536000, immutable"
ASK = "no-cache"
PLOTLY_VERSION = version("plotly")

router = APIRouter(dependencies=[require(Role.ANYONE)])


def static_url(name: str) -> str:
    """A static file's address for a page: `{{ static("preflab.css") }}`."""
    if name == "vendor/plotly.min.js":
        return f"/static/{name}?v={PLOTLY_VERSION}"
    path = resource("static") / name
    return f"/static/{name}?v={_hash(path, path.stat().st_mtime_ns)}"


@lru_cache(maxsize=256)
def _hash(path: Path, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


class CachedFiles(StaticFiles):
    """Static files which say how long they may be kept."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = FOREVER if b"v=" in scope["query_string"] else ASK
        return response


@router.get("/static/vendor/plotly.min.js", include_in_schema=False)
async def plotly(request: Request) -> Response:
    """The script inside the installed plotly package: nothing comes from elsewhere."""
    script = _plotly_script()
    headers = {"Cache-Control": FOREVER if "v" in request.query_params else ASK, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        script = await run_in_threadpool(_compressed, request.app.state.settings, script)
        if script.suffix == ".gz":
            headers["Content-Encoding"] = "gzip"
    return FileResponse(script, media_type="text/javascript", headers=headers)


def _plotly_script() -> Path:
    spec = find_spec("plotly")  # found, not imported: the package is large
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def _compressed(settings: Settings, script: Path) -> Path:
    """The script, compressed once into the home's cache; itself where that cannot be written."""
    packed = settings.home / "cache" / f"plotly-{PLOTLY_VERSION}.min.js.gz"
    if not packed.exists():
        try:
            packed.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(packed, gzip.compress(script.read_bytes(), 6, mtime=0))
        except OSError:
            return script
    return packed
