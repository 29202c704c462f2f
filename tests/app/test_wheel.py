"""The wheel, in an empty environment far from the checkout, without torch: pages work, and it says why nothing trains."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.app.processes import answers, running, until
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.long
def test_the_wheel_holds_all_that_is_not_code_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("templates", "static", "alembic"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"app/_resources/{path.relative_to(ROOT)}" in names
    for path in (ROOT / "training").rglob("*"):
        if path.is_file() and path.suffix in {".yaml", ".jinja", ".py"}:
            assert str(path.relative_to(ROOT)) in names
    assert not [name for name in names if name.startswith(("tests/", "alembic/", "benchmarks/"))]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_without_torch_the_wheel_serves_pages_and_says_why_nothing_trains(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python, preflab = environment / "bin/python", environment / "bin/preflab"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, wheel], check=True)

    place, log, port = tmp_path / "elsewhere", tmp_path / "up.log", free_port()
    place.mkdir()
    variables = {"PATH": os.environ["PATH"], "PREFLAB_HOME": str(tmp_path / "away"), "PREFLAB_PORT": str(port)}

    def run(*arguments):
        return subprocess.run(
            [preflab, *arguments], cwd=place, env=variables, capture_output=True, text=True, check=False
        )

    assert "demo" in run("presets", "list").stdout
    with running([preflab, "up"], log, cwd=place, env=variables) as process:
        until(lambda: answers(f"http://127.0.0.1:{port}"), log=log)
        link = until(lambda: re.search(r"http://\S+/login\?token=\S+", log.read_text()), log=log).group()
        with httpx.Client(follow_redirects=True) as browser:
            page = browser.get(link)
            assert page.status_code == 200 and "Nothing has been trained yet" in page.text
            for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
                assert browser.get(f"http://127.0.0.1:{port}{address}").status_code == 200, address
            for path in ("/runs/new", "/experiments", "/datasets", "/workers", "/api/docs"):
                assert browser.get(f"http://127.0.0.1:{port}{path}").status_code == 200, path
        assert "No worker is started" in log.read_text() and "preflab[train]" in log.read_text()
        worker = run("worker")
        assert worker.returncode == 1 and "torch is not installed" in worker.stderr
        (place / "chats.jsonl").write_text('{"text": "hello"}\n')
        assert run("import", "dataset", "chats.jsonl", "--name", "chats").returncode == 0
        launched = run("launch", "--stage", "sft", "--set", "model=new:tiny", "--set", "dataset=data:chats")
        assert launched.returncode == 0 and "No worker has been seen" in launched.stderr
        doctor = run("doctor")
        assert doctor.returncode == 1 and "cannot train" in doctor.stdout
        process.terminate()
        assert process.wait(20) == 0
