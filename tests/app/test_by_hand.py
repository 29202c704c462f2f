"""docs/deployment.md, by hand: PostgreSQL, Redis with a password, the web server and a worker, each a process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import redis

from tests.app.processes import answers, running, until
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
PREFLAB = [sys.executable, "-m", "app.cli"]


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.redis
def test_the_parts_started_by_hand_train_a_run_that_the_command_line_launches(tmp_path, postgres_url):
    broker_port, port = free_port(), free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREFLAB_HOME": str(tmp_path / "home"),
        "PREFLAB_DATABASE_URL": postgres_url,
        "PREFLAB_BROKER_URL": f"redis://:a-password@127.0.0.1:{broker_port}/0",
        "PREFLAB_PORT": str(port),
        "PREFLAB_THREADS": "1",
    }
    where = {"cwd": tmp_path, "env": environment}

    def preflab(*arguments):
        done = subprocess.run([*PREFLAB, *arguments], capture_output=True, text=True, check=False, **where)
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = ["--appendonly", "yes", "--maxmemory-policy", "noeviction", "--requirepass", "a-password", "--save", ""]
    server = ["redis-server", "--port", str(broker_port), "--bind", "127.0.0.1", "--dir", str(tmp_path), *options]
    with running(server, tmp_path / "redis.log"):
        client = redis.Redis(port=broker_port, password="a-password")
        until(lambda: pings(client))
        preflab("db", "upgrade")
        link = re.search(r"http://\S+", preflab("token", "login")).group()
        web, worker = [sys.executable, "-m", "app.serve"], [*PREFLAB, "worker"]
        with running(web, tmp_path / "web.log", **where), running(worker, tmp_path / "worker.log", **where):
            until(lambda: answers(f"http://127.0.0.1:{port}"), log=tmp_path / "web.log")
            rows = [{"text": f"The number {n} comes after {n - 1}."} for n in range(1, 200)]
            (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            preflab("import", "dataset", "texts.jsonl", "--name", "texts")
            settings = ["model=new:micro", "dataset=data:texts", "max_steps=8", "max_length=32", "sample_count=0"]
            sets = [word for setting in settings for word in ("--set", setting)]
            launched = json.loads(preflab("launch", "--stage", "sft", *sets, "--wait", "--json"))
            (run,) = launched["runs"]
            assert run["state"] == "finished"
            shown = json.loads(preflab("runs", "show", str(run["id"]), "--json"))
            assert shown["step"] == 8 and shown["metrics"]["eval_loss"]["best"] < 10
            with httpx.Client(follow_redirects=True) as browser:
                browser.get(link)
                page = browser.get(f"http://127.0.0.1:{port}/runs/{run['id']}")
                assert page.status_code == 200 and run["name"] in page.text
            alive = [row["alive"] for row in json.loads(preflab("workers", "--here", "--json"))["rows"]]
            assert alive == [True]
            checks = {row["check"]: row["ok"] for row in json.loads(preflab("doctor", "--json"))["rows"]}
            assert checks["database"] and checks["broker"] and checks["workers"]


def pings(client):
    try:
        return client.ping()
    except redis.RedisError:
        return False
