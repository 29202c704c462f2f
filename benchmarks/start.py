"""How long a person waits: `preflab up` to the first page, Launch to the first loss, and the web process's memory.

    python -m benchmarks.start [--starts 5]

Each start is a real `preflab up` on a fresh home; the launch goes through the HTTP API with the smallest fresh model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import psutil

from benchmarks.about import about

ADDRESS = re.compile(r"(http://[\d.:]+)/login\?token=\S+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--starts", type=int, default=5)
    arguments = parser.parse_args()
    print(about("fastapi", "uvicorn", "celery", "torch"))
    measured = [measure() for _ in range(arguments.starts)]
    for name, unit in (("first page", "s"), ("first loss", "s"), ("web memory", "MB"), ("worker memory", "MB")):
        values = [one[name] for one in measured]
        print(f"{name:14} median {statistics.median(values):7.2f} {unit}   ({min(values):.2f} to {max(values):.2f})")


def measure() -> dict[str, float]:
    """One start, one launch, one end."""
    with tempfile.TemporaryDirectory() as folder:
        write_chats(Path(folder) / "chats.jsonl")
        environment = {**os.environ, "PREFLAB_HOME": f"{folder}/home", "PREFLAB_PORT": "0"}
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            return watch(process, began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def watch(process: subprocess.Popen[str], began: float) -> dict[str, float]:
    assert process.stdout is not None
    link = next(found for line in process.stdout if (found := ADDRESS.search(line)))
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with browser.open(link.group(0)) as page:
        assert b"<html" in page.read()
    first_page = time.monotonic() - began
    address = link.group(1)
    began = time.monotonic()
    run = launch(browser, address)
    while "loss" not in get(browser, f"{address}/api/v1/runs/{run}")["run"]["metrics"]:
        time.sleep(0.02)
    return {"first page": first_page, "first loss": time.monotonic() - began, **memory(process.pid)}


def launch(browser: urllib.request.OpenerDirector, address: str) -> int:
    config = {"model": "new:tiny", "dataset": "path:chats.jsonl", "max_steps": 20, "batch_size": 8}
    body = json.dumps({"stage": "sft", "config": config}).encode()
    headers = {"Content-Type": "application/json", "X-Preflab": "1", "Origin": address}
    with browser.open(urllib.request.Request(f"{address}/api/v1/runs", body, headers)) as answer:
        return int(json.load(answer)["run"]["id"])


def get(browser: urllib.request.OpenerDirector, url: str) -> dict[str, dict[str, object]]:
    with browser.open(url) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def memory(supervisor: int) -> dict[str, float]:
    """Proportional set size of the web process and of the worker's main process, in MB."""
    found = {}
    for child in psutil.Process(supervisor).children():
        name = "web memory" if "app.serve" in " ".join(child.cmdline()) else "worker memory"
        found[name] = child.memory_full_info().pss / 1e6
    return found


def write_chats(path: Path) -> None:
    numbers = random.Random(0)
    with path.open("w") as file:
        for _ in range(200):
            a, b = numbers.randrange(50), numbers.randrange(50)
            turns = [{"role": "user", "content": f"{a} + {b}?"}, {"role": "assistant", "content": str(a + b)}]
            file.write(json.dumps({"messages": turns}) + "\n")


if __name__ == "__main__":
    main()
