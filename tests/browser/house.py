"""A house to look at: a real web server process on a free port, a real database, and a trainer's hand.

The hand writes journals with `training.journal.Journal` and ships them with `worker.relay`, as a worker would.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from app import migrations, tokens
from app.auth import Role
from app.db import Database
from app.experiments import service as experiments
from app.models import Run
from app.runs import states
from app.settings import Settings
from tests.conftest import free_port
from training.config import parse_config
from training.journal import Journal
from training.rundir import RunDir
from worker.relay import ship_all

HERE = Path(__file__).resolve().parents[2]


class House:
    """One installation, its server started and killed at will."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, port=free_port(), allowed_paths=[home], min_free_disk_bytes=0)
        self.settings.create_home()
        self.database = Database(self.settings.database)
        migrations.upgrade(self.database.engine)
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFLAB_")}
        return kept | {
            "PREFLAB_HOME": str(self.settings.home),
            "PREFLAB_PORT": str(self.settings.port),
            "PREFLAB_ALLOWED_PATHS": str(self.settings.home),
            "PREFLAB_MIN_FREE_DISK_BYTES": "0",
            "PREFLAB_THREADS": "1",
            "PREFLAB_DEVICES": "cpu",
        }

    def start(self) -> None:
        """Start the web server, and wait until it answers."""
        with (self.settings.home / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "app.serve"]
            self.server = subprocess.Popen(command, cwd=HERE, env=self.environment(), stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/healthz", timeout=2)
                return
            except (urllib.error.URLError, ConnectionError):
                assert self.server.poll() is None, (self.settings.home / "server.log").read_text()
                assert time.monotonic() < deadline, "the web server did not start"
                time.sleep(0.05)

    def kill(self) -> None:
        """As a crash would: SIGKILL."""
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def close(self) -> None:
        if self.server is not None and self.server.poll() is None:
            self.kill()
        self.database.dispose()

    def login(self, role: Role = Role.ADMIN) -> str:
        """A link that signs a browser in, once."""
        with self.database.write() as session:
            _, secret = tokens.create(session, tokens.LOGIN, role, "test")
        return f"{self.address}/login?token={secret}"

    @contextlib.contextmanager
    def worker(self) -> Iterator[None]:
        """A real worker beside the server."""
        with (self.settings.home / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "worker"]
            process = subprocess.Popen(command, cwd=HERE, env=self.environment(), stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)

    # -- the trainer's hand --------------------------------------------------------------------------------------

    def launch(self, name: str = "", experiment: str = "trial", **config: object) -> int:
        """A queued run."""
        trains = config.get("stage", "sft") not in ("respond", "judge")
        content = {"stage": "sft", **({"model": "new:tiny", "dataset": "data:chats"} if trains else {}), **config}
        if content.get("dataset") == "data:chats":
            content["dataset"] = f"path:{self.chats()}"
        with self.database.write() as session:
            run = experiments.launch_one(
                session, self.settings, parse_config(content), name=name, experiment=experiment
            )
            assert run.id is not None
            return run.id

    def chats(self, count: int = 64) -> Path:
        """A small data file in the home."""
        path = self.settings.home / "chats.jsonl"
        row = (
            '{"messages": [{"role": "user", "content": "What is %d + 1?"}, {"role": "assistant", "content": "%d."}]}\n'
        )
        path.write_text("".join(row % (n, n + 1) for n in range(count)))
        return path

    def begin(self, run_id: int) -> Hand:
        """Claim a run as a worker would, and open its journal."""
        with self.database.write() as session:
            run = session.get(Run, run_id)
            assert run is not None
            attempt = run.attempt + 1
            claim = {"worker": "worker-1", "device": "cpu"}
            assert states.move(session, run_id, states.F, attempt=attempt, claim=claim, started_at=time.time())
        return Hand(self, run_id, attempt)


class Hand:
    """Writes one attempt's journal and ships what it wrote."""

    def __init__(self, house: House, run_id: int, attempt: int) -> None:
        self.house, self.run_id = house, run_id
        self.directory = RunDir(house.settings.run_folder(run_id))
        self.directory.create()
        self.journal = Journal(self.directory.journal, attempt)
        self.open = True

    def steps(self, first: int, last: int, total: int) -> None:
        """Metrics of some steps, as the trainer writes them."""
        if first == 1:
            self.journal.status("training", steps=total, from_step=0)
        for step in range(first, last + 1):
            loss = 1.2 + 5.0 * 0.985**step + 0.25 * ((step * 7919) % 13 - 6) / 13
            rate = 1e-4 * min(1.0, step / 20) * (1 - step / (total + 1))
            self.journal.metrics(
                step, loss=loss, learning_rate=rate, grad_norm=0.8 + 2 * 0.97**step, tokens=step * 8192,
                tokens_per_second=41_000.0 + 3000 * ((step * 31) % 7 - 3), epoch=step / 50,
                memory=1_400_000_000 + step * 10_000, utilisation=0.93,
            )  # fmt: skip
            if step % 10 == 0:
                self.journal.metrics(step, eval_loss=loss + 0.1)
        self.ship()

    def ship(self) -> None:
        ship_all(self.house.database, self.run_id, self.directory.journal)

    def end(self, arrow: states.Arrow, error: dict[str, object] | None = None) -> None:
        """Ship the rest, and end the attempt."""
        self.open = False
        self.journal.close()
        self.ship()
        with self.house.database.write() as session:
            assert states.move(session, self.run_id, arrow, error=error, desired_state=None)
