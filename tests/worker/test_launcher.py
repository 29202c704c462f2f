"""One attempt, from its claim to its end, with a trainer that does what the test says."""

import os
import signal
import sqlite3
import threading
import time

import pytest

from app.models import Run
from app.runs import lease, service, states
from tests.worker.helpers import DONE, attempt, events, launch, row, shipped_exactly_once, until
from training.errors import Failure
from training.rundir import RunDir
from worker import trainer
from worker.devices import CPU, Device
from worker.launcher import how_it_died
from worker.processes import ProcessId, process_id, start_time

QUICK = {"beat_seconds": 0.05, "lease_seconds": 20.0, "stop_grace_seconds": 20.0}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update=QUICK)


def in_background(work):
    """Run an attempt in a thread, so that the test can do something to it meanwhile."""
    thread = threading.Thread(target=work.run)
    thread.start()
    return thread


def again(database, settings, script, **more):
    """Claim and run one attempt to its end."""
    work = attempt(database, settings, script, **more)
    work.run()
    return work


def journal_has(settings, run_id, text):
    path = RunDir(settings.run_folder(run_id)).journal
    return path.exists() and text in path.read_text()


def test_arrow_K_a_trainer_that_ends_well_finishes_the_run(any_database, settings):
    run_id = launch(any_database, settings)
    again(any_database, settings, f"journal.metrics(1, loss=2.0); {DONE}")
    found = row(any_database, run_id)
    assert (found.state, found.attempt, found.claim, found.error) == (states.FINISHED, 1, None, None)
    assert found.summary["loss"]["last"] == 2.0
    assert shipped_exactly_once(any_database, settings, run_id)


def test_arrow_H_a_trainer_that_ends_well_without_its_model_has_failed(database, settings):
    run_id = launch(database, settings)
    again(database, settings, "journal.metrics(1, loss=2.0)")
    assert (row(database, run_id).state, row(database, run_id).error["code"]) == (states.FAILED, "incomplete")


def test_arrow_H_what_the_trainer_said_stands_on_the_row(database, settings):
    run_id = launch(database, settings)
    again(database, settings, "fail(Exit.DATA, 'Line 7 is no JSON.')")
    found = row(database, run_id)
    assert (found.state, found.attempt, found.error["message"]) == (states.FAILED, 1, "Line 7 is no JSON.")


def test_arrow_H_an_error_of_an_earlier_attempt_is_not_told_again(database, settings):
    run_id = launch(database, settings)
    again(database, settings, "fail(Exit.DATA, 'Line 7 is no JSON.')")
    with database.write() as session:
        service.resume(session, run_id)
    again(database, settings, "sys.exit(Exit.DISK)")
    assert row(database, run_id).error["code"] == "disk"


def test_arrow_G_a_killed_trainer_is_tried_again_and_its_death_is_explained(database, settings):
    run_id = launch(database, settings)
    again(database, settings, "journal.metrics(1, loss=2.0); os.kill(os.getpid(), 9)")
    found = row(database, run_id)
    assert (found.state, found.fruitless, found.error) == (states.QUEUED, 1, None)
    assert "SIGKILL): probably memory ran out" in events(database, run_id, "state")[-1].body
    again(database, settings, f"journal.metrics(2, loss=1.0); {DONE}")
    assert row(database, run_id).state == states.FINISHED
    assert [event.attempt for event in events(database, run_id, "metrics")] == [1, 2]


def test_a_trainer_out_of_memory_is_tried_again(database, settings):
    run_id = launch(database, settings)
    again(database, settings, "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); b'x' * 2**30")
    assert row(database, run_id).state == states.QUEUED
    assert "exit code 1" in events(database, run_id, "state")[-1].body
    assert "MemoryError" not in "".join(event.body for event in events(database, run_id))


def test_arrow_H_a_run_that_always_crashes_fails_after_three_attempts(database, settings):
    run_id = launch(database, settings)
    for _ in range(3):
        again(database, settings, "sys.exit(1)")
    found = row(database, run_id)
    assert (found.state, found.attempt) == (states.FAILED, 3)
    assert "exit code 1" in found.error["message"]


def test_attempts_that_make_new_checkpoints_may_crash_as_often_as_they_like(database, settings):
    run_id = launch(database, settings)
    for _ in range(5):
        again(database, settings, "checkpoint(run.attempt); sys.exit(1)")
    assert (row(database, run_id).state, row(database, run_id).fruitless) == (states.QUEUED, 0)
    again(database, settings, "sys.exit(1)")
    assert row(database, run_id).fruitless == 1


def test_arrow_J_a_running_run_saves_and_stops_when_asked(any_database, settings):
    run_id = launch(any_database, settings)
    script = "journal.log('here'); stop.wait(); checkpoint(1); journal.log('saved'); sys.exit(Exit.STOPPED)"
    thread = in_background(attempt(any_database, settings, script))
    until(lambda: journal_has(settings, run_id, "here"))
    with any_database.write() as session:
        service.stop(session, run_id)
    thread.join(20)
    assert row(any_database, run_id).state == states.STOPPED
    assert events(any_database, run_id, "log")[-1].body.count("saved") == 1


def test_arrow_J_a_trainer_that_ignores_being_asked_is_killed_after_the_grace(database, settings):
    settings = settings.model_copy(update={"stop_grace_seconds": 0.3})
    run_id = launch(database, settings)
    work = attempt(database, settings, "journal.log('here'); time.sleep(60)")
    thread = in_background(work)
    until(lambda: journal_has(settings, run_id, "here"))
    with database.write() as session:
        service.stop(session, run_id)
    thread.join(20)
    assert row(database, run_id).state == states.STOPPED
    assert work.process.returncode == -signal.SIGKILL


def test_arrow_G_when_the_worker_leaves_the_trainer_saves_and_the_run_is_queued(database, settings):
    run_id = launch(database, settings)
    leaving = threading.Event()
    script = "journal.log('here'); stop.wait(); checkpoint(1); sys.exit(Exit.STOPPED)"
    thread = in_background(attempt(database, settings, script, leaving.is_set))
    until(lambda: journal_has(settings, run_id, "here"))
    leaving.set()
    thread.join(20)
    found = row(database, run_id)
    assert (found.state, found.fruitless, found.desired_state) == (states.QUEUED, 0, None)
    assert (RunDir(settings.run_folder(run_id)).checkpoints / "step-000001").is_dir()


def test_a_trainer_that_hangs_is_killed_and_its_run_tried_again(database, settings):
    settings = settings.model_copy(update={"stall_seconds": 0.5})
    run_id = launch(database, settings)
    again(database, settings, "journal.log('here'); os.kill(os.getpid(), 19)")
    assert row(database, run_id).state == states.QUEUED
    assert "wrote nothing for" in events(database, run_id, "state")[-1].body


def test_a_fenced_attempt_kills_its_trainer_at_once_and_writes_nothing(any_database, settings):
    run_id = launch(any_database, settings)
    work = attempt(any_database, settings, "journal.log('here'); time.sleep(60)")
    work._prepare()
    work._start()
    until(lambda: journal_has(settings, run_id, "here"))
    with any_database.write() as session:
        lease.expire(session, run_id, 1, 0, Failure(code="x", message="x"), new_checkpoint=False)
    before = row(any_database, run_id).model_dump()
    work.beat(time.monotonic())
    assert work.process.returncode == -signal.SIGKILL
    work.relay(time.monotonic())
    work.end()
    assert row(any_database, run_id).model_dump() == before


def test_nothing_of_a_trainer_is_left_not_even_what_hides_from_its_group(database, settings):
    run_id = launch(database, settings)
    script = """
first = subprocess.Popen(["sleep", "300"])
second = subprocess.Popen(["setsid", "sleep", "301"])
journal.log(f"{first.pid} {second.pid}")
os._exit(1)
"""
    again(database, settings, script)
    pids = events(database, run_id, "log")[0].body.split('"message":"')[1].rstrip('"}').split()
    assert len(pids) == 2
    until(lambda: all(start_time(int(pid)) is None for pid in pids))


def test_what_an_earlier_attempt_left_is_killed_before_the_next_starts(database, settings):
    run_id = launch(database, settings)
    first = attempt(database, settings, "journal.log('here'); time.sleep(300)")
    first._prepare()
    first._start()
    until(lambda: journal_has(settings, run_id, "here"))
    with database.write() as session:
        lease.expire(session, run_id, 1, 0, Failure(code="x", message="x"), new_checkpoint=False)
    again(database, settings, DONE)
    assert first.process.wait(5) == -signal.SIGKILL
    assert row(database, run_id).state == states.FINISHED


def test_an_attempt_that_ends_leaves_a_later_one_alone(database, settings):
    """A worker that slept through its lease kills its own trainer, and not the one that goes on with the run."""
    run_id = launch(database, settings)
    script = "journal.log('here'); time.sleep(300)"
    first = attempt(database, settings, script)
    first._prepare()
    first._start()
    with database.write() as session:
        lease.expire(session, run_id, 1, 0, Failure(code="x", message="x"), new_checkpoint=False)
    second = attempt(database, settings, script)
    second._prepare()
    second._start()
    until(lambda: journal_has(settings, run_id, '"attempt":2'))
    trainer.kill_leftover(second.run_dir, 1)  # as by a worker that slept before it began
    first.beat(time.monotonic())
    assert first.process.returncode == -signal.SIGKILL
    assert second.process.poll() is None
    second.kill()
    assert second.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("lie", [{"started": 1}, {"boot": "another boot"}], ids=["pid reused", "rebooted"])
def test_a_stranger_that_has_the_pid_of_an_earlier_trainer_is_spared(database, settings, lie):
    run_id = launch(database, settings)
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "300"], {})
    try:
        run_dir = RunDir(settings.run_folder(run_id))
        run_dir.create()
        identity = {**process_id(stranger).model_dump(), **lie}
        run_dir.process.write_text(trainer.TrainerNote(**identity, attempt=0, kept=[]).model_dump_json())
        again(database, settings, DONE)
        assert start_time(stranger) is not None
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


def test_a_trainer_of_another_machine_that_holds_the_directory_is_waited_for_not_counted(database, settings):
    settings = settings.model_copy(update={"lease_seconds": 0.4})
    run_id, other = launch(database, settings, "first"), launch(database, settings, "second")
    run_dir = RunDir(settings.run_folder(run_id))
    run_dir.create()
    with run_dir.locked():
        again(database, settings, DONE)
    found = row(database, run_id)
    assert (found.state, found.fruitless) == (states.QUEUED, 0)
    assert attempt(database, settings, DONE).run_id == other  # it went behind the others


def test_a_retry_removes_what_was_made_and_a_resume_does_not(database, settings):
    run_id = launch(database, settings)
    again(database, settings, "checkpoint(1); fail(Exit.DATA, 'no')")
    run_dir = RunDir(settings.run_folder(run_id))
    with database.write() as session:
        service.resume(session, run_id)
    again(database, settings, "checkpoint(2); fail(Exit.DATA, 'no')")
    assert len(list(run_dir.checkpoints.iterdir())) == 2
    run_dir.commits.write_text("{}")
    (settings.shared_folder / "kept").write_text("what other runs can use")
    with database.write() as session:
        service.resume(session, run_id)
    again(database, settings, "assert run_dir.commits.exists(); fail(Exit.DATA, 'no')")
    with database.write() as session:
        service.retry(session, run_id)
    again(
        database,
        settings,
        f"assert not run_dir.checkpoints.exists() and not run_dir.commits.exists(); checkpoint(3); {DONE}",
    )
    found = row(database, run_id)
    assert (found.state, found.fresh) == (states.FINISHED, False)
    assert [path.name for path in run_dir.checkpoints.iterdir()] == ["step-000003"]
    assert (settings.shared_folder / "kept").exists()


def test_what_a_run_of_another_database_left_under_the_same_id_is_set_aside(database, settings):
    first = launch(database, settings)
    again(database, settings, f"run_dir.checkpoints.mkdir(); journal.metrics(1, loss=2.0); {DONE}")
    folder = settings.run_folder(first)
    with database.write() as session:
        session.get_one(Run, first).created_at += 1  # as a new database's run of this id would have
        session.get_one(Run, first).cursor = 0
        session.get_one(Run, first).state = states.QUEUED
    again(database, settings, f"journal.metrics(1, loss=1.0); {DONE}")
    assert row(database, first).summary["loss"]["last"] == 1.0
    assert not (folder / "checkpoints").exists()
    (aside,) = settings.runs_folder.glob(f"{first}.before-*")
    assert (aside / "checkpoints").is_dir()


def test_the_trainer_gets_the_config_and_where_its_inputs_are(database, settings):
    run_id = launch(database, settings, max_steps=7)
    again(database, settings, DONE)
    content = RunDir(settings.run_folder(run_id)).read_config()
    assert (content.attempt, content.stage, content.config["max_steps"]) == (1, "sft", 7)
    (reference,) = [text for text in content.inputs if text.startswith("path:")]
    assert content.inputs[reference].path == str(settings.home / "chats.jsonl")


def test_an_input_that_is_gone_fails_the_run_in_a_sentence(database, settings):
    parent = launch(database, settings, "parent")
    again(database, settings, DONE)
    launch(database, settings, "child", (parent,), model="run:parent")
    with database.write() as session:
        row_ = session.get_one(type(row(database, parent)), parent)
        row_.name = "renamed"
    work = attempt(database, settings, DONE)
    work.run()
    found = row(database, work.run_id)
    assert found.state == states.FAILED
    assert "“parent” that this one needs is gone" in found.error["message"]
    assert work.process is None


def test_the_trainer_learns_nothing_that_it_need_not_know(settings):
    own = {
        "PATH": "/bin",
        "HF_TOKEN": "hf",
        "CUDA_HOME": "/cuda",
        "PREFLAB_DATABASE_URL": "postgresql://secret",
        "PREFLAB_BROKER_URL": "redis://secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "CUDA_VISIBLE_DEVICES": "0,1,2",
    }
    run_dir = RunDir(settings.run_folder(1))
    told = trainer.environment(settings, Device("gpu-1", "GPU", "GPU-abc"), run_dir, 1, own, {})
    assert "secret" not in str(told)
    assert (told["PATH"], told["HF_TOKEN"], told["CUDA_HOME"]) == ("/bin", "hf", "/cuda")
    assert told["CUDA_VISIBLE_DEVICES"] == "GPU-abc"
    assert trainer.environment(settings, CPU, run_dir, 1, own, {})["CUDA_VISIBLE_DEVICES"] == ""
    offline = settings.model_copy(update={"offline": True, "threads": 3})
    told = trainer.environment(offline, CPU, run_dir, 1, {}, {})
    assert (told["HF_HUB_OFFLINE"], told["PREFLAB_THREADS"]) == ("1", "3")


def test_what_the_trainer_prints_goes_to_a_private_log_that_stays_small(database, settings, monkeypatch):
    monkeypatch.setattr(trainer, "LOG_BYTES", 50_000)
    run_id = launch(database, settings)
    again(
        database,
        settings,
        f"""
for number in range(30):
    print("x" * 10_000, flush=True); journal.log("line"); time.sleep(0.02)
time.sleep(0.3); print("the end", flush=True)
{DONE}""",
    )
    run_dir = RunDir(settings.run_folder(run_id))
    assert row(database, run_id).state == states.FINISHED
    assert 0 < run_dir.log.stat().st_size < 300_000
    assert run_dir.log.with_name("trainer.log.1").exists()
    assert run_dir.log.stat().st_mode & 0o077 == 0
    assert trainer.last_lines(run_dir).endswith("the end")


def test_training_goes_on_while_the_database_is_locked_and_nothing_is_lost(database, settings):
    run_id = launch(database, settings)
    script = f"""
for step in range(60):
    journal.metrics(step, loss=1.0); time.sleep(0.02)
{DONE}"""
    work = attempt(database, settings, script)
    with database.engine.connect() as connection:  # fails in a moment, not after five seconds
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    thread = in_background(work)
    until(lambda: journal_has(settings, run_id, '"step":3,'))
    blocker = sqlite3.connect(settings.home / "preflab.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    until(lambda: journal_has(settings, run_id, '"step":50,'))
    assert thread.is_alive()
    blocker.execute("ROLLBACK")
    thread.join(20)
    blocker.close()
    assert row(database, run_id).state == states.FINISHED
    assert shipped_exactly_once(database, settings, run_id)
    assert len(events(database, run_id, "metrics")) == 60


def test_a_worker_that_cannot_renew_its_lease_kills_its_trainer(database, settings):
    settings = settings.model_copy(update={"lease_seconds": 40.0})
    run_id = launch(database, settings)
    work = attempt(database, settings, "journal.log('here'); time.sleep(60)")
    work._prepare()
    work._start()
    now = time.monotonic()
    work.beat(now)
    work.watch(now + 29)
    assert work.process.poll() is None
    work.watch(now + 31)
    assert work.process.returncode == -signal.SIGKILL
    work.end()
    assert row(database, run_id).state == states.QUEUED
    assert "could not reach the database" in events(database, run_id, "state")[-1].body


def test_a_run_directory_that_cannot_be_written_fails_the_run(database, settings):
    run_id = launch(database, settings)
    settings.run_folder(run_id).write_text("a file is in the way")
    work = attempt(database, settings, DONE)
    work.run()
    assert row(database, run_id).error["code"] == "disk"


@pytest.mark.parametrize(
    ("code", "told"),
    [(-9, "SIGKILL"), (137, "SIGKILL"), (-11, "SIGSEGV"), (1, "exit code 1"), (-200, "exit code -200")],
)
def test_every_death_has_a_sentence(code, told):
    assert told in how_it_died(code)


def test_a_process_is_itself_only_with_its_start_time_and_boot():
    me = process_id(os.getpid())
    assert me.here
    assert me.alive()
    assert not me.provably_dead
    assert ProcessId(pid=me.pid, started=me.started - 1, boot=me.boot).provably_dead
    assert not ProcessId(pid=me.pid, started=me.started - 1, boot="elsewhere").provably_dead


def test_a_zombie_is_dead():
    child = os.posix_spawn("/bin/true", ["true"], {})
    until(lambda: start_time(child) is None)
    os.waitpid(child, 0)
