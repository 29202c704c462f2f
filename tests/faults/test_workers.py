"""Workers, pool processes and messages that die or go astray: every run ends once, and never has two trainers."""

import json
import os
import shutil
import signal

import pytest
import redis

from app.runs import service, states
from tests.worker.helpers import DONE, events, launch, row, shipped_exactly_once, until
from training.rundir import RunDir

# Steps, with a checkpoint at each tenth; goes on from the last one, as the real trainer does.
TRAINING = f"""
steps = sorted(int(path.name[5:]) for path in run_dir.checkpoints.glob("step-*"))
for step in range((steps or [0])[-1] + 1, 61):
    journal.metrics(step, loss=1 / step, pid=os.getpid())
    if step % 10 == 0 and step > (steps or [0])[-1]:
        checkpoint(step)
    if stop.is_set():
        sys.exit(Exit.STOPPED)
    time.sleep(0.03)
{DONE}
"""
WAITING = f"journal.log('here'); [time.sleep(0.02) for _ in iter(lambda: (run_dir.root / 'go').exists(), True)]; {DONE}"


def state(installation, run_id):
    return row(installation.database, run_id).state


def trains(installation, run_id, step):
    """Whether the run, in some attempt, is past a step now."""
    found = row(installation.database, run_id)
    return found.state == states.RUNNING and found.step >= step and len(installation.trainers(run_id)) == 1


def finished(installation, run_id):
    until(lambda: state(installation, run_id) == states.FINISHED)
    assert shipped_exactly_once(installation.database, installation.settings, run_id)
    assert installation.trainers(run_id) == []
    never_two_trainers(installation, run_id)


def never_two_trainers(installation, run_id):
    """No line of an attempt comes after a line of a later one: the lock let the next in when the last was gone."""
    lines = RunDir(installation.settings.run_folder(run_id)).journal.read_text().splitlines()
    attempts = [json.loads(line)["attempt"] for line in lines if line.startswith("{") and line.endswith("}")]
    assert attempts == sorted(attempts)


def go(installation, run_id):
    (installation.settings.run_folder(run_id) / "go").touch()


def has_begun(installation, run_id):
    return bool(events(installation.database, run_id, "log"))


def test_arrow_G_a_worker_that_is_killed_takes_its_trainer_with_it_and_another_goes_on(installation):
    run_id = launch(installation.database, installation.settings)
    worker = installation.worker(TRAINING)
    until(lambda: trains(installation, run_id, 15))
    worker.kill()
    worker.wait()
    until(lambda: installation.trainers(run_id) == [], 5)
    installation.worker(TRAINING)
    finished(installation, run_id)
    found = row(installation.database, run_id)
    assert found.attempt == 2
    steps = [event.step for event in events(installation.database, run_id, "metrics") if event.attempt == 2]
    assert steps[0] in (11, 21)


@pytest.mark.long
def test_arrow_G_a_pool_process_that_is_killed_is_replaced_and_its_run_goes_on(installation):
    run_id = launch(installation.database, installation.settings)
    worker = installation.worker(TRAINING)
    until(lambda: trains(installation, run_id, 15))
    os.kill(installation.pool_process(run_id), signal.SIGKILL)
    finished(installation, run_id)
    assert row(installation.database, run_id).attempt == 2
    assert worker.poll() is None


def test_arrow_G_a_worker_that_is_asked_to_leave_lets_its_trainer_save_first(installation):
    run_id = launch(installation.database, installation.settings)
    worker = installation.worker(TRAINING)
    until(lambda: trains(installation, run_id, 5))
    worker.terminate()
    assert worker.wait(15) == 0
    found = row(installation.database, run_id)
    assert (found.state, found.fruitless) == (states.QUEUED, 0)
    assert installation.trainers(run_id) == []
    installation.worker(TRAINING)
    finished(installation, run_id)


@pytest.mark.long
def test_a_replaced_pool_process_survives_the_beginning_of_a_shutdown(embedded):
    """A kernel that ties a process to the thread that forked it would kill it before its trainer has saved."""
    run_id = launch(embedded.database, embedded.settings)
    worker = embedded.worker(TRAINING.replace("sys.exit(Exit", "time.sleep(1.5); journal.log('saved'); sys.exit(Exit"))
    until(lambda: trains(embedded, run_id, 5))
    os.kill(embedded.pool_process(run_id), signal.SIGKILL)
    until(lambda: any(event.attempt == 2 for event in events(embedded.database, run_id, "metrics")))
    worker.terminate()
    assert worker.wait(15) == 0
    assert state(embedded, run_id) == states.QUEUED
    assert events(embedded.database, run_id, "log")


@pytest.mark.long
def test_signals_to_every_process_at_once_are_a_shutdown_too(embedded):
    run_id = launch(embedded.database, embedded.settings)
    worker = embedded.worker(TRAINING)
    until(lambda: trains(embedded, run_id, 5))
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait(15)
    found = row(embedded.database, run_id)
    assert (found.state, found.fruitless) == (states.QUEUED, 0)


def test_the_same_message_fifty_times_starts_one_trainer(installation):
    run_id = launch(installation.database, installation.settings)
    for _ in range(50):
        installation.bell.ring(run_id)
    installation.worker(WAITING)
    until(lambda: has_begun(installation, run_id))
    assert len(installation.trainers(run_id)) == 1
    go(installation, run_id)
    finished(installation, run_id)
    assert row(installation.database, run_id).attempt == 1


def test_a_run_whose_web_server_died_before_ringing_is_found(installation):
    installation.worker(TRAINING)
    installation.database._ring = None
    run_id = launch(installation.database, installation.settings)
    finished(installation, run_id)


def test_a_queue_that_was_wiped_is_filled_again(installation):
    runs = [launch(installation.database, installation.settings, name) for name in ("first", "second")]
    installation.worker(WAITING)
    until(lambda: has_begun(installation, runs[0]))
    if installation.settings.embedded_queue:
        shutil.rmtree(installation.settings.queue_folder)
    else:
        redis.Redis.from_url(installation.settings.broker_url).flushall()
    third = launch(installation.database, installation.settings, "third")
    for run_id in (*runs, third):
        until(lambda run_id=run_id: has_begun(installation, run_id))
        go(installation, run_id)
        finished(installation, run_id)


@pytest.mark.long
def test_a_worker_that_slept_through_its_lease_is_fenced_and_trainers_never_overlap(installation):
    run_id = launch(installation.database, installation.settings)
    sleeper = installation.worker(TRAINING.replace("0.03", "0.1"))
    until(lambda: trains(installation, run_id, 12))
    pool = installation.pool_process(run_id)
    for pid in (sleeper.pid, pool):
        os.kill(pid, signal.SIGSTOP)
    installation.worker(TRAINING)
    until(lambda: row(installation.database, run_id).attempt == 2)
    for pid in (sleeper.pid, pool):
        os.kill(pid, signal.SIGCONT)
    finished(installation, run_id)
    assert row(installation.database, run_id).attempt == 2


def test_arrow_J_stop_reaches_a_run_whose_broker_is_gone(installation):
    run_id = launch(installation.database, installation.settings)
    installation.worker(TRAINING.replace("0.03", "0.2"))
    until(lambda: trains(installation, run_id, 1))
    if installation.settings.embedded_queue:
        shutil.rmtree(installation.settings.queue_folder)
    else:
        redis.Redis.from_url(installation.settings.broker_url).shutdown(nosave=True)
    with installation.database.write() as session:
        service.stop(session, run_id)
    until(lambda: state(installation, run_id) == states.STOPPED)


@pytest.mark.long
def test_two_workers_share_the_queue_and_each_run_is_worked_on_once(installation):
    runs = [launch(installation.database, installation.settings, f"run{number}") for number in range(6)]
    for _ in range(2):
        installation.worker(f"journal.log('here'); time.sleep(0.2); {DONE}")
    for run_id in runs:
        finished(installation, run_id)
    assert {row(installation.database, run_id).attempt for run_id in runs} == {1}


@pytest.mark.long
@pytest.mark.redis
@pytest.mark.postgres
def test_a_run_longer_than_the_visibility_timeout_has_one_trainer(with_servers):
    run_id = launch(with_servers.database, with_servers.settings)
    for _ in range(2):
        with_servers.worker(WAITING, visibility_timeout=1)
    until(lambda: has_begun(with_servers, run_id))
    client = redis.Redis.from_url(with_servers.settings.broker_url)
    begun = client.info("commandstats").get("cmdstat_brpop", {}).get("calls", 0)
    until(lambda: client.info("commandstats")["cmdstat_brpop"]["calls"] >= begun + 4)  # the workers have looked since
    assert len(with_servers.trainers(run_id)) == 1
    go(with_servers, run_id)
    finished(with_servers, run_id)
    assert row(with_servers.database, run_id).attempt == 1


@pytest.mark.long
@pytest.mark.redis
@pytest.mark.postgres
def test_connections_that_are_cut_in_the_middle_of_a_run_leave_one_trainer(with_servers):
    run_id = launch(with_servers.database, with_servers.settings)
    with_servers.worker(TRAINING.replace("0.03", "0.1"))
    until(lambda: trains(with_servers, run_id, 5))
    client = redis.Redis.from_url(with_servers.settings.broker_url)
    client.client_kill_filter(_type="normal", skipme=True)
    with with_servers.database.engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finished(with_servers, run_id)
    assert row(with_servers.database, run_id).attempt == 1


@pytest.mark.long
@pytest.mark.redis
@pytest.mark.postgres
def test_a_run_that_was_launched_while_redis_was_down_is_rung_when_it_is_back(with_servers, tmp_path):
    from tests.conftest import start_redis

    with_servers.worker(TRAINING)
    client = redis.Redis.from_url(with_servers.settings.broker_url)
    client.shutdown(nosave=True)
    run_id = launch(with_servers.database, with_servers.settings)  # it returns although nobody can be rung
    port = int(with_servers.settings.broker_url.rsplit(":", 1)[1].split("/")[0])
    server = start_redis(tmp_path / "redis", port)
    try:
        finished(with_servers, run_id)
    finally:
        server.kill()
        server.wait()
