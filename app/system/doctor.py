"""What works on this machine, what does not, and what to do. No torch in this process: a child is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select

from app import migrations
from app.database_errors import from_database
from app.db import Database
from app.disk import free_bytes
from app.errors import AppError
from app.models import Worker
from app.settings import Settings

TRAIN = "pip install 'preflab[train]'"
TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count() if cuda else 0)]
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(),
    "devices": [{"name": d.name, "gib": d.total_memory / 2**30, "major": d.major} for d in devices]}))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer."""

    check: str
    ok: bool
    detail: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which one would look. A check that breaks is a finding too."""
    for check in (home, disk, database, workers, broker):
        yield guarded(check, settings)
    torch = _torch()
    yield torch_finding(torch)
    yield gpu_finding(torch)
    yield flash_attention(torch)
    yield guarded(hub, settings)


def guarded(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except AppError as error:
        return Finding(check.__name__, False, error.message, error.hint)
    except SQLAlchemyError as error:
        found = from_database(error)  # type: ignore[arg-type]
        return Finding(check.__name__, False, found.message, found.hint)
    except Exception as error:  # noqa: BLE001 - the doctor must not be the patient
        return Finding(check.__name__, False, f"{type(error).__name__}: {error}")


def home(settings: Settings) -> Finding:
    path = settings.home
    if not path.exists():
        return Finding("home", True, f"{path} does not exist yet.", "`preflab up` makes it.")
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding("home", False, f"{path} cannot be written.", "Check its owner, or set PREFLAB_HOME.")
    if path.stat().st_mode & 0o077:
        return Finding("home", False, f"{path} can be read by others on this machine.", f"chmod 700 {path}")
    return Finding("home", True, f"{path} is yours alone.")


def disk(settings: Settings) -> Finding:
    free = free_bytes(settings)
    detail = f"{free / 1e9:,.1f} GB are free."
    shared = sum(file.stat().st_size for file in settings.shared_folder.rglob("*") if file.is_file())
    if shared:
        detail += f" {settings.shared_folder} holds {shared / 1e9:,.1f} GB that can be deleted at any time."
    if free < settings.min_free_disk_bytes:
        return Finding("disk", False, detail, "Delete old runs; uploads and launches are refused until then.")
    return Finding("disk", True, detail)


def database(settings: Settings) -> Finding:
    url = make_url(settings.database)
    name = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return Finding("database", True, f"{name} does not exist yet.", "`preflab up` makes it.")
    opened = Database(settings.database)
    try:
        migrations.check(opened.engine)
    finally:
        opened.dispose()
    return Finding("database", True, f"{name}, revision {migrations.head()}.")


def workers(settings: Settings) -> Finding:
    if database(settings).hint:
        return Finding("workers", True, "None yet.", "`preflab up` starts one.")
    opened = Database(settings.database)
    try:
        with opened.read() as session:
            recent = col(Worker.seen_at) > time.time() - settings.lease_seconds
            names = session.exec(select(Worker.name).where(recent).order_by(Worker.name)).all()
    finally:
        opened.dispose()
    if not names:
        return Finding("workers", True, "None is running.", "`preflab up` or `preflab worker` starts one.")
    return Finding("workers", True, f"{len(names)}: {', '.join(names)}.")


def broker(settings: Settings) -> Finding:
    if settings.embedded_queue:
        folder = settings.queue_folder
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            return Finding("broker", False, f"The queue of files {folder} cannot be written.", "Check its owner.")
        return Finding("broker", True, f"A queue of files at {folder}.")
    if not settings.broker_url.startswith(("redis://", "rediss://")):
        return Finding("broker", False, "PREFLAB_BROKER_URL is not a redis:// address.", "See docs/deployment.md.")
    return _redis(settings.broker_url)


def _redis(address: str) -> Finding:
    import redis

    client = redis.Redis.from_url(address, socket_timeout=5, socket_connect_timeout=5)
    try:
        persistent = client.info("persistence").get("aof_enabled") == 1
        version = client.info("server")["redis_version"]
    except redis.RedisError as error:
        hint = "Check that it runs, and PREFLAB_BROKER_URL. Runs wait in the database until it is back."
        return Finding("broker", False, f"Redis does not answer: {error}.", hint)
    finally:
        client.close()
    hint = "" if persistent else "Without `appendonly yes` a restart forgets the queue; runs are announced again later."
    return Finding("broker", True, f"Redis {version}.", hint)


def _torch() -> dict[str, Any] | None:
    """What torch says of itself, from a child process; None where it is not installed. {} where it breaks."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH_PROBE], capture_output=True, text=True, timeout=60, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        return {}
    return found


def torch_finding(torch: dict[str, Any] | None) -> Finding:
    if torch is None:
        return Finding("torch", False, "torch is not installed: this machine shows pages, but cannot train.", TRAIN)
    if not torch:
        return Finding("torch", False, "torch is installed, but cannot be imported.", f"Install it again: {TRAIN}")
    missing = [name for name in ("transformers", "datasets", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("torch", False, f"{', '.join(missing)} is not installed.", TRAIN)
    return Finding("torch", True, f"torch {torch['version']}, {torch['threads']} threads.")


def gpu_finding(torch: dict[str, Any] | None) -> Finding:
    devices = (torch or {}).get("devices", [])
    if devices:
        names = ", ".join(f"{device['name']} ({device['gib']:.0f} GiB)" for device in devices)
        return Finding("gpu", True, f"{names}.")
    if shutil.which("nvidia-smi") and torch:
        hint = "torch may be a CPU build, or newer than the driver: see docs/install.md."
        return Finding("gpu", False, "There is an NVIDIA driver, but torch sees no GPU.", hint)
    return Finding("gpu", True, "None: training runs on the CPU.", "Small models only; see docs/performance.md.")


def flash_attention(torch: dict[str, Any] | None) -> Finding:
    if importlib.util.find_spec("flash_attn") is not None:
        return Finding("flash-attention", True, f"flash-attn {metadata.version('flash-attn')}.")
    worth = any(device["major"] >= 8 for device in (torch or {}).get("devices", []))
    hint = "It is faster on this GPU: see docs/install.md." if worth else ""
    return Finding("flash-attention", True, "Not installed; PyTorch's own attention is used.", hint)


def hub(settings: Settings) -> Finding:
    """Which models can be used without the network."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        names = sorted(repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model")
    except CacheNotFound:
        names = []
    found = f"{len(names)} models are on this machine{': ' if names else ''}{', '.join(names[:8])}."
    offline = settings.offline or os.environ.get("HF_HUB_OFFLINE") == "1"
    if offline:
        return Finding("hub", True, f"Offline. {found}", "" if names else "Only new: and path: models can be used.")
    return Finding("hub", True, found)
