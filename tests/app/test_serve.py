"""The web server as a process: when it starts, when it refuses, how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import httpx
import psutil
import pytest

from app import serve, tokens
from app.auth import Role
from app.errors import Unavailable
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]


def make_token(database, kind=tokens.API):
    with database.write() as session:
        return tokens.create(session, kind, Role.ADMIN, "test")[1]


@pytest.fixture
def server(database):
    """Start `python -m app.serve` with more environment; all are killed at the end."""
    running = []

    def start(*arguments, wait=True, **environment):
        port = environment.setdefault("PREFLAB_PORT", str(free_port()))
        process = subprocess.Popen(
            [sys.executable, "-m", "app.serve", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        if wait:
            wait_for(lambda: answers(port))
        return process, f"http://127.0.0.1:{port}"

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


def answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_it_ends_within_five_seconds_though_streams_are_open(server, database):
    secret = make_token(database)
    process, address = server()
    streams = []
    for _ in range(5):
        request = urllib.request.Request(
            f"{address}/api/v1/live?runs=active", headers={"Authorization": f"Bearer {secret}"}
        )
        streams.append(urllib.request.urlopen(request, timeout=20))
    begun = time.monotonic()
    process.terminate()
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 5
    for stream in streams:
        stream.close()


def test_it_ends_with_the_process_that_started_it(tmp_path, database):
    port = free_port()
    script = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "app.serve", "--parent", str(os.getpid())])
print(child.pid, flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PREFLAB_PORT": str(port)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        wait_for(lambda: answers(port))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=6)
    finally:
        parent.kill()
        parent.stdout.close()
        if child.is_running():
            child.kill()


def test_a_port_that_another_program_has_is_said_in_a_sentence(server):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process, _ = server(wait=False, PREFLAB_PORT=str(other.getsockname()[1]))
        _, said = process.communicate(timeout=20)
    assert process.returncode == serve.USAGE
    assert "Address already in use" in said and "PREFLAB_PORT" in said and "Traceback" not in said


def test_another_address_than_this_machines_needs_names_and_somebody_who_can_sign_in(settings, database):
    open_door = settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(Unavailable, match="PREFLAB_ALLOWED_HOSTS is empty"):
        serve.check(open_door)
    named = open_door.model_copy(update={"allowed_hosts": ["lab.example"]})
    with pytest.raises(Unavailable, match="nobody can sign in"):
        serve.check(named)
    make_token(database)
    serve.check(named)
    serve.check(settings)


def test_an_expired_link_is_nobody(settings, database):
    with database.write() as session:
        tokens.create(session, tokens.LOGIN, Role.ADMIN, "old", lifetime=-1)
    named = settings.model_copy(update={"host": "0.0.0.0", "allowed_hosts": ["lab.example"]})
    with pytest.raises(Unavailable, match="nobody can sign in"):
        serve.check(named)


def test_nothing_secret_is_printed(server, database):
    link = make_token(database, tokens.LOGIN)
    process, address = server(PREFLAB_LOG_LEVEL="debug")
    assert httpx.get(f"{address}/login", params={"token": link}).status_code == 303
    process.terminate()
    _, said = process.communicate(timeout=10)
    assert link not in said


def test_the_web_side_loads_no_torch():
    forbidden = "{'torch', 'transformers', 'datasets', 'peft', 'sentence_transformers'}"
    script = f"import sys, app.main, app.cli, app.demo.show; assert not {forbidden} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
