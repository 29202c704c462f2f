"""The reaper: nobody's run is forgotten, nobody's run is taken away. The clock is passed in; nobody waits."""

import os
import signal

import pytest

from app.runs import lease, states
from tests.worker.helpers import claim, events, launch, row
from training.rundir import RunDir
from worker.processes import process_id
from worker.reaper import Reaper, State
from worker.trainer import TrainerNote, whole_checkpoints


class Bell:
    def __init__(self):
        self.rung, self.free = [], 1

    def __call__(self, run_id):
        self.rung.append(run_id)


@pytest.fixture
def bell():
    return Bell()


@pytest.fixture
def reaper(any_database, settings, bell):
    return Reaper(any_database, settings, bell, lambda: bell.free)


def sweep_for(reaper, state, seconds, start=0.0, step=1.0):
    """Sweep every second, from `start` on. Returns when it ended."""
    now = start
    while now <= start + seconds:
        reaper.sweep(state, now)
        now += step
    return now


def test_arrow_G_a_lease_expires_when_the_beat_stood_still_for_its_whole_time(reaper, any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database)
    state = State()
    sweep_for(reaper, state, settings.lease_seconds - 1)
    assert row(any_database, run_id).state == states.RUNNING
    sweep_for(reaper, state, 1, start=settings.lease_seconds)
    assert row(any_database, run_id).state == states.QUEUED
    assert "no sign of life" in events(any_database, run_id, "state")[-1].body


def test_a_worker_that_beats_keeps_its_run(reaper, any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database)
    state = State()
    now = 0.0
    for _ in range(5):
        now = sweep_for(reaper, state, settings.lease_seconds - 5, start=now)
        with any_database.write() as session:
            assert lease.beat(session, run_id, 1).alive
    assert row(any_database, run_id).state == states.RUNNING


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_wall_clock_that_jumps_expires_nothing(reaper, any_database, settings, monkeypatch, jump):
    run_id = launch(any_database, settings)
    claim(any_database)
    state = State()
    sweep_for(reaper, state, 10)
    real = __import__("time").time
    monkeypatch.setattr("time.time", lambda: real() + jump)
    sweep_for(reaper, state, 10, start=11)
    assert row(any_database, run_id).state == states.RUNNING


def test_time_that_the_reaper_did_not_watch_does_not_count(reaper, any_database, settings):
    """After the database was away for long, workers have the time to beat again."""
    run_id = launch(any_database, settings)
    claim(any_database)
    state = State()
    reaper.sweep(state, 0.0)
    reaper.sweep(state, 10_000.0)
    assert row(any_database, run_id).state == states.RUNNING


def test_arrow_G_what_a_dead_process_of_this_machine_held_is_given_back_at_once(reaper, any_database, settings):
    run_id = launch(any_database, settings)
    child = os.posix_spawn("/bin/sleep", ["sleep", "300"], {})
    holder = process_id(child).model_dump()
    claim(any_database, {"worker": "w", "device": "cpu", **holder})
    state = State()
    reaper.sweep(state, 0.0)
    assert row(any_database, run_id).state == states.RUNNING
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reaper.sweep(state, 1.0)
    assert row(any_database, run_id).state == states.QUEUED


def test_a_process_of_another_boot_or_machine_is_given_its_lease_and_then_recovered(reaper, any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database, {"pid": 1, "started": 1, "boot": "another"})
    state = State()
    now = sweep_for(reaper, state, settings.lease_seconds / 2)
    assert row(any_database, run_id).state == states.RUNNING
    sweep_for(reaper, state, settings.lease_seconds, start=now)
    assert row(any_database, run_id).state == states.QUEUED


def test_a_dead_worker_counts_as_progress_where_its_trainer_made_a_checkpoint(reaper, any_database, settings):
    run_id = launch(any_database, settings)
    run_dir = RunDir(settings.run_folder(run_id))
    run_dir.create()
    dead = {"pid": 2**22 + 1, "started": 1, "boot": process_id(os.getpid()).boot}
    for number, made in enumerate([False, False, True, False], start=1):
        claim(any_database, dead)
        found = sorted(whole_checkpoints(run_dir))
        run_dir.process.write_text(TrainerNote(**dead, attempt=number, kept=found).model_dump_json())
        if made:
            (run_dir.checkpoints / "step-000001").mkdir(parents=True)
            (run_dir.checkpoints / "step-000001" / "manifest.json").write_text('{"full": true}')
        reaper.sweep(State(), 0.0)
    assert (row(any_database, run_id).state, row(any_database, run_id).fruitless) == (states.QUEUED, 1)


def test_queued_runs_are_announced_again_when_nobody_took_them(reaper, bell, any_database, settings):
    first = launch(any_database, settings, "first")
    launch(any_database, settings, "second")
    state = State()
    reaper.sweep(state, 0.0)
    assert bell.rung == [first]  # at its start, for what was queued before it
    sweep_for(reaper, state, settings.ring_seconds - 2, start=1)
    assert len(bell.rung) == 1
    sweep_for(reaper, state, 2, start=settings.ring_seconds)
    assert len(bell.rung) > 1


def test_nothing_is_announced_while_every_device_is_taken(reaper, bell, any_database, settings):
    """Otherwise a long training would fill the queue with messages."""
    launch(any_database, settings)
    bell.free = 0
    sweep_for(reaper, State(), 10 * settings.ring_seconds)
    assert bell.rung == []


def test_a_waiting_run_whose_parents_have_ended_is_put_right(reaper, bell, any_database, settings):
    parent = launch(any_database, settings, "parent")
    child = launch(any_database, settings, "child", (parent,))
    claim(any_database)
    with any_database.write() as session:  # without graph.settle, as when parent and launch missed each other
        states.move(session, parent, states.K)
    assert reaper.sweep(State(), 0.0)
    assert row(any_database, child).state == states.QUEUED


def test_a_sweep_that_finds_nothing_says_so(reaper):
    assert reaper.sweep(State(), 0.0) is False
