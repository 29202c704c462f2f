"""A whole installation for fault tests: a database, a broker, and worker processes to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from app import tokens
from app.auth import Role
from app.db import Database
from app.doorbell import Doorbell
from app.settings import Settings
from tests.app.processes import answers
from tests.conftest import free_port
from tests.worker.helpers import row, until
from worker.processes import start_time, started_with
from worker.trainer import MARK

WORKER = Path(__file__).parent / "scripted_worker.py"
ROOT = Path(__file__).parents[2]


def _leads(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


class Installation:
    """Settings and a database as `preflab` would have them; every process that it starts is gone after the test."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self.bell = Doorbell(settings)
        self.database = Database(url, ring=self.bell.ring)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = settings.home / "worker.log"

    @property
    def environment(self) -> dict[str, str]:
        told = self.settings.model_dump(mode="json", exclude_defaults=True)
        told["allowed_paths"] = ",".join(told["allowed_paths"])
        names = {f"PREFLAB_{name.upper()}": str(value) for name, value in told.items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), **names}

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.settings.home,
            )
        self.processes.append(process)
        return process

    def worker(self, script: str, visibility_timeout: int = 3600) -> subprocess.Popen[bytes]:
        """A worker whose trainers follow the script."""
        return self.start(str(WORKER), script, str(visibility_timeout))

    def web(self) -> httpx.Client:
        """A web server, and a client that may do everything there."""
        port = free_port()
        self.settings = self.settings.model_copy(update={"port": port})
        with self.database.write() as session:
            secret = tokens.create(session, tokens.API, Role.ADMIN, "test")[1]
        self.start("-m", "app.serve")
        address = f"http://127.0.0.1:{port}"
        until(lambda: answers(address))
        return httpx.Client(base_url=address, headers={"Authorization": f"Bearer {secret}"}, timeout=30)

    def trainers(self, run_id: int) -> list[int]:
        """The pids of all trainers of this run: each leads a session of its own (what it starts itself does not)."""
        folder = str(self.settings.run_folder(run_id))
        marked = [pid for pid, mark in started_with(MARK) if mark.partition(" ")[2] == folder]
        return [pid for pid in marked if start_time(pid) is not None and _leads(pid)]

    def pool_process(self, run_id: int) -> int:
        """The pid of the process that claimed the run."""
        claim = row(self.database, run_id).claim
        assert claim is not None
        return int(claim["pid"])

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        for pid, home in started_with("PREFLAB_HOME"):
            if home == str(self.settings.home):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.bell.close(1)
        self.database.dispose()
