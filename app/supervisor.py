"""`preflab up`: one process that starts the web server and a worker, restarts what dies, and ends both in order.

It holds `home/lock` for as long as it lives, so that a home is not served twice. Its parts end when it ends, however
it ends: each asks the kernel for that (`--parent`).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from app import migrations
from app.db import Database
from app.errors import Conflict
from app.settings import Settings

LOOK_SECONDS = 0.1
USAGE = 2  # a part's exit code: trying again would end the same way, and it has said why
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before a dead part is started again
STEADY_SECONDS = 60.0  # a part that lived so long is started again without a longer pause
WEB_GRACE_SECONDS = 5.0
PORT_SECONDS = 5.0  # how long an earlier web server may take to let go of the port

Say = Callable[[str], None]


@dataclass
class Part:
    """A process that is kept alive. `look` is called again and again, with a monotonic clock's time."""

    name: str
    command: Sequence[str]
    grace: float  # seconds that it may take to end when asked
    say: Say
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    refused: bool = False  # it said that it cannot start at all
    _started: float = 0.0
    _deaths: int = 0
    _next_start: float | None = None

    def start(self, now: float) -> None:
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which ends the parts in order.
        self.process = subprocess.Popen(
            [*self.command, "--parent", str(os.getpid())],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._started, self._next_start = now, None

    def look(self, now: float) -> bool:
        """Start it, or start it again, if it is time. True where something changed."""
        if self.refused:
            return False
        if self._next_start is not None:
            if now < self._next_start:
                return False
            self.start(now)
            return True
        if self.process is None:
            self.start(now)
            return True
        code = self.process.poll()
        if code is None:
            return False
        if code == USAGE:
            self.refused = True
            return True
        self._deaths = 1 if now - self._started > STEADY_SECONDS else self._deaths + 1
        pause = PAUSES[min(self._deaths, len(PAUSES)) - 1]
        self._next_start = now + pause
        self.say(f"The {self.name} ended ({_ending(code)}); it is started again in {pause:g} s.")
        return True

    def ask_to_end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait_or_kill(self, deadline: float) -> None:
        """Wait for it to end, until a monotonic clock's time; then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.say(f"The {self.name} took too long to end, and is killed.")
            self.process.kill()
            self.process.wait()


def supervise(settings: Settings, *, say: Say = print, ready: Callable[[str], None] = lambda address: None) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; then end everything in order and return 0.

    `ready` is called once with the address when the web server answers. Returns 2 where it cannot start: it has said
    why. Raises Conflict where this home or the port is taken, Unavailable where the database is not fit.
    """
    settings.create_home()
    port = settings.port or _free_port(settings.host)
    address = f"http://{_shown(settings.host)}:{port}"
    with home_lock(settings.home, address), _signals() as asked:
        _upgrade(settings)
        _wait_for_port(settings.host, port, asked)
        parts = make_parts(settings, port, say)
        try:
            return _keep(parts, settings.host, port, asked, lambda: ready(address))
        finally:
            _end(parts, asked, say)


def make_parts(settings: Settings, port: int, say: Say) -> list[Part]:
    """The web server, and a worker where one can train."""
    web = Part("web server", (sys.executable, "-m", "app.serve"), WEB_GRACE_SECONDS, say, {"PREFLAB_PORT": str(port)})
    if importlib.util.find_spec("torch") is None:
        say("No worker is started: PyTorch is not installed, so nothing can train here (pip install 'preflab[train]').")
        return [web]
    return [web, Part("worker", (sys.executable, "-m", "worker"), settings.stop_grace_seconds + 15, say)]


@contextlib.contextmanager
def home_lock(home: Path, address: str) -> Iterator[None]:
    """Hold the home, and say in the lock's file who does. Raises Conflict where another process holds it."""
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(home, os.pread(descriptor, 4096, 0)) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, orjson.dumps({"pid": os.getpid(), "address": address}), 0)
        yield
    finally:
        os.close(descriptor)


def _taken(home: Path, content: bytes) -> Conflict:
    try:
        holder = orjson.loads(content)
        who = f" by process {holder['pid']}, at {holder['address']}"
    except (ValueError, KeyError, TypeError):
        who = ""
    return Conflict(
        f"{home} is being served already{who}.",
        "Open that address, stop that process, or choose another home by PREFLAB_HOME.",
    )


@dataclass
class Asked:
    """How often somebody asked to end: once ends in order, again kills."""

    times: int = 0


@contextlib.contextmanager
def _signals() -> Iterator[Asked]:
    asked = Asked()

    def ask(*_: object) -> None:
        asked.times += 1

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep(parts: Sequence[Part], host: str, port: int, asked: Asked, ready: Callable[[], None]) -> int:
    """Keep the parts alive until somebody asks to end, or the web server cannot start."""
    answered = False
    while not asked.times:
        for part in parts:
            part.look(time.monotonic())
        if parts[0].refused:
            return USAGE
        if not answered and _answers(host, port):
            answered = True
            ready()
        time.sleep(LOOK_SECONDS)
    return 0


def _end(parts: Sequence[Part], asked: Asked, say: Say) -> None:
    """Ask all parts to end, the worker first, and wait for them. Asked again, kill."""
    running = [part for part in reversed(parts) if part.process is not None and part.process.poll() is None]
    if any(part.name == "worker" for part in running):
        say("Stopping: a run that trains saves first, and goes on at the next start. Ctrl-C again ends at once.")
    begun, patience = time.monotonic(), asked.times + 1
    for part in running:
        part.ask_to_end()
    while any(part.process is not None and part.process.poll() is None for part in running):
        now = time.monotonic()
        for part in running:
            if asked.times >= patience or now - begun > part.grace:
                part.wait_or_kill(now)
        time.sleep(LOOK_SECONDS)


def _upgrade(settings: Settings) -> None:
    database = Database(settings.database)
    try:
        migrations.upgrade(database.engine)
    finally:
        database.dispose()


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(host: str, port: int, asked: Asked) -> None:
    """Wait a little where somebody still answers there: the web server of a supervisor that was killed just now.

    Raises Conflict where it goes on answering: it is another program's.
    """
    deadline = time.monotonic() + PORT_SECONDS
    while _answers(host, port) and not asked.times:
        if time.monotonic() > deadline:
            raise Conflict(
                f"Port {port} is taken by another program.", "Stop it, or choose another port by PREFLAB_PORT."
            )
        time.sleep(LOOK_SECONDS)


def _answers(host: str, port: int) -> bool:
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    with contextlib.suppress(OSError), socket.create_connection((reached, port), timeout=0.5):
        return True
    return False


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
