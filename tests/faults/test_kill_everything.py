"""The whole house, with a real training run, while its parts are killed one after another with kill -9.

The run must end finished, its curve must equal the curve of a run that nobody disturbed to the last bit, every line
of its journal must be in the database exactly once, and there must never have been two trainers.
"""

import json
import os
import shutil
import signal
import threading
from collections import defaultdict

import psutil
import pytest
import redis

from app.runs import states
from tests.conftest import start_redis
from tests.faults.test_workers import never_two_trainers
from tests.worker.helpers import events, launch, row, shipped_exactly_once, until
from training.rundir import RunDir
from worker.trainer import made_progress

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PREFLAB = "from app.settings import load_settings; from app.supervisor import supervise; supervise(load_settings())"
TRAINING = {
    "model": "new:tiny",
    "max_steps": 400,
    "batch_size": 8,
    "max_length": 64,
    "eval_fraction": 0.1,
    "eval_every": 20,
    "save_every": 5,
    "sample_every": 100,
    "sample_count": 1,
    "sample_tokens": 8,
}
PARTS = [
    "trainer",
    "web",
    "worker",
    "broker",
    "pool",
    "trainer",
    "broker",
    "worker",
    "web",
    "pool",
    "trainer",
    "worker",
]


@pytest.fixture
def chats(settings):
    path = settings.home / "sums.jsonl"
    with path.open("w") as file:
        for number in range(200):
            asked = {"role": "user", "content": f"What is {number} plus {number % 7}?"}
            told = {"role": "assistant", "content": f"It is {number + number % 7}."}
            file.write(json.dumps({"messages": [asked, told]}) + "\n")
    return f"path:{path}"


class House:
    """`preflab up`, and how to kill each of its parts."""

    def __init__(self, installation, tmp_path):
        self.installation, self.redis_folder = installation, tmp_path / "redis"
        self.supervisor = installation.start("-c", PREFLAB)
        self.run_id = 0
        self.most_trainers = 0
        self.seen = []  # the most trainers that there were at once
        self._watching = threading.Event()

    def part(self, module):
        """The pid of a part that the supervisor runs."""
        for child in psutil.Process(self.supervisor.pid).children():
            try:
                if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
            except psutil.NoSuchProcess:
                continue
        return None

    def kill(self, name):
        {
            "trainer": lambda: os.kill(self.installation.trainers(self.run_id)[0], signal.SIGKILL),
            "pool": lambda: os.kill(self.installation.pool_process(self.run_id), signal.SIGKILL),
            "worker": lambda: self.kill_part("worker"),
            "web": lambda: self.kill_part("app.serve"),
            "broker": self.kill_broker,
        }[name]()

    def kill_part(self, module):
        os.kill(until(lambda: self.part(module), 60), signal.SIGKILL)  # the supervisor may be starting it again

    def kill_broker(self):
        url = self.installation.settings.broker_url
        if not url:
            shutil.rmtree(self.installation.settings.queue_folder)
            return
        server = psutil.Process(redis.Redis.from_url(url).info("server")["process_id"])
        server.kill()
        until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        self.installation.processes.append(start_redis(self.redis_folder, port))

    def watch(self):
        """Count trainers, again and again, until `stop_watching`."""
        while not self._watching.wait(0.02):
            trainers = self.installation.trainers(self.run_id)
            if len(trainers) > self.most_trainers:
                self.most_trainers = len(trainers)
                self.seen = [(pid, psutil.Process(pid).cmdline(), psutil.Process(pid).status()) for pid in trainers]

    def stop_watching(self):
        self._watching.set()


def curve(database, run_id):
    """Every metric of each step that a repeated run must give again; of two attempts at a step the later."""
    found = defaultdict(dict)
    for event in events(database, run_id, "metrics"):
        values = json.loads(event.body)
        same = ("loss", "grad_norm", "learning_rate", "eval_loss", "tokens", "epoch")
        found[event.step] |= {name: values[name] for name in same if name in values}
    return dict(found)


def test_a_run_survives_twelve_kills_with_the_curve_of_an_undisturbed_one(installation, chats, tmp_path):
    database = installation.database
    house = House(installation, tmp_path)
    undisturbed = launch(database, installation.settings, "undisturbed", dataset=chats, **TRAINING)
    until(lambda: row(database, undisturbed).state == states.FINISHED, 200)

    house.run_id = run_id = launch(database, installation.settings, "disturbed", dataset=chats, **TRAINING)
    run_dir = RunDir(installation.settings.run_folder(run_id))
    watcher = threading.Thread(target=house.watch)
    watcher.start()
    killed, attempt = 0, 1
    try:
        for part in PARTS:
            wait_for_progress(installation, run_id, run_dir, attempt)
            assert row(database, run_id).state == states.RUNNING, f"ended after {killed} kills"
            house.kill(part)
            killed += 1
            attempt += part in ("trainer", "worker", "pool")
        until(lambda: row(database, run_id).state in states.ENDED, 200)
    finally:
        house.stop_watching()
        watcher.join()

    found = row(database, run_id)
    print(f"{killed} kills, {found.attempt} attempts, {found.last_event} events, {len(curve(database, run_id))} steps")
    assert (found.state, found.error) == (states.FINISHED, None)
    assert found.attempt == attempt == 9
    assert curve(database, run_id) == curve(database, undisturbed)
    assert max(curve(database, run_id)) == TRAINING["max_steps"]
    assert shipped_exactly_once(database, installation.settings, run_id)
    assert house.most_trainers == 1, house.seen
    never_two_trainers(installation, run_id)

    house.supervisor.terminate()
    assert house.supervisor.wait(30) == 0


def wait_for_progress(installation, run_id, run_dir, attempt):
    """Wait until this attempt has made a checkpoint and stepped on."""

    def progressed():
        found = row(installation.database, run_id)
        steps = [event.attempt for event in events(installation.database, run_id, "metrics")]
        return found.state in states.ENDED or (
            steps.count(attempt) >= 2 and made_progress(run_dir, attempt) and len(installation.trainers(run_id)) == 1
        )

    until(progressed, 90)
