"""`preflab up`: dead parts come back, a second start is refused, and nothing is left behind."""

import importlib.util
import os
import signal
import socket
import sys

import psutil
import pytest

from app.errors import Conflict
from app.supervisor import PAUSES, STEADY_SECONDS, Part, home_lock, make_parts, supervise
from tests.worker.helpers import until
from worker.processes import start_time

UP = "from app.settings import load_settings; from app.supervisor import supervise; {before}supervise(load_settings())"
WEB_ALONE = "import importlib.util; importlib.util.find_spec = lambda name: None; "  # as without torch: starts quicker


@pytest.fixture
def house(embedded):
    """An installation whose web server has a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        embedded.settings = embedded.settings.model_copy(update={"port": probe.getsockname()[1]})
    return embedded


def up(house, before=WEB_ALONE):
    process = house.start("-c", UP.format(before=before))
    until(lambda: answers(house))
    return process


def answers(house):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", house.settings.port)) == 0


def parts(process):
    return [child.pid for child in psutil.Process(process.pid).children()]


def test_ctrl_c_ends_all_parts_in_order(house):
    process = up(house, before="")
    running = parts(process)
    assert len(running) == 2
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert all(start_time(pid) is None for pid in running)
    assert "Stopping: a run that trains saves first" in house.log.read_text()


def test_a_web_server_that_died_is_started_again(house):
    process = up(house)
    (web,) = parts(process)
    os.kill(web, signal.SIGKILL)
    until(lambda: parts(process) not in ([], [web]) and answers(house))
    assert "The web server ended (SIGKILL); it is started again in 1 s." in house.log.read_text()


def test_parts_end_when_their_supervisor_is_killed(house):
    process = up(house)
    running = parts(process)
    process.kill()
    process.wait()
    until(lambda: all(start_time(pid) is None for pid in running), 10)
    up(house)  # and the home is free again


def test_a_second_start_on_the_same_home_is_refused_with_the_first_ones_address(settings):
    with home_lock(settings.home, "http://127.0.0.1:8321"):
        with pytest.raises(Conflict) as refusal:
            supervise(settings)
        told = refusal.value.message
        assert str(os.getpid()) in told
        assert "http://127.0.0.1:8321" in told
    with home_lock(settings.home, "http://127.0.0.1:1"):
        assert (settings.home / "lock").read_text().count("address") == 1


def test_a_port_that_another_program_has_is_said_before_anything_starts(settings, monkeypatch):
    monkeypatch.setattr("app.supervisor.PORT_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"Port {port} is taken by another program") as caught:
            supervise(settings.model_copy(update={"port": port}), ready=pytest.fail)
    assert "PREFLAB_PORT" in caught.value.hint


def test_without_torch_no_worker_starts_and_it_is_said_why(settings, monkeypatch):
    said = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [part.name for part in make_parts(settings, 1, said.append)] == ["web server"]
    assert "PyTorch is not installed" in said[0]


def make_part(script, said):
    return Part("part", (sys.executable, "-S", "-c", script), 1.0, said.append)


def ended(part):
    part.process.wait(10)
    return part


def test_a_part_that_keeps_dying_is_started_after_longer_and_longer_pauses():
    said = []
    part = make_part("raise SystemExit(1)", said)
    now = 0.0
    for number in range(len(PAUSES) + 2):
        assert part.look(now)  # started
        ended(part)
        assert part.look(now)  # noticed
        pause = PAUSES[min(number, len(PAUSES) - 1)]
        assert not part.look(now + pause - 0.1)
        now += pause
    assert said[1] == "The part ended (exit code 1); it is started again in 2 s."
    part.look(now)
    ended(part).look(now + STEADY_SECONDS + 1)
    assert said[-1].endswith("in 1 s.")


def test_a_part_that_says_that_it_cannot_start_is_left_alone():
    said = []
    part = make_part("raise SystemExit(2)", said)
    part.look(0.0)
    ended(part).look(1.0)
    assert part.refused
    assert not part.look(100.0)
    assert said == []


def test_a_part_that_ignores_being_asked_is_killed():
    said = []
    part = make_part("import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)", said)
    part.look(0.0)
    part.ask_to_end()
    part.wait_or_kill(0.0)
    assert part.process.returncode in (-signal.SIGKILL, -signal.SIGTERM)
