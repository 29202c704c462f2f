"""The life of a run in the database, arrow by arrow (docs/states.md), on SQLite and on Postgres."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from app.errors import Conflict
from app.experiments import service as experiments
from app.models import Run
from app.runs import graph, lease, service, states
from tests.worker.helpers import claim, events, launch, row
from training.config import parse_config
from training.errors import Failure

DEATH = Failure(code="died", message="It died.")


def letters(database, run_id):
    """The arrows that a run followed, by its events."""
    return "".join(json.loads(event.body)["arrow"] for event in events(database, run_id, "state"))


def do(database, verb, *arguments, **options):
    with database.write() as session:
        return verb(session, *arguments, **options)


def end(database, run_id, verb=lease.finish, *arguments):
    """Claim a run, which must be the next one, and end it."""
    run = claim(database)
    assert run.id == run_id
    assert do(database, verb, run_id, run.attempt, *arguments)


def test_arrow_A_a_run_waits_while_a_parent_is_unfinished(any_database, settings):
    parent = launch(any_database, settings, "parent")
    child = launch(any_database, settings, "child", (parent,))
    assert row(any_database, child).state == states.WAITING
    assert letters(any_database, child) == "A"


def test_arrow_B_a_run_without_unfinished_parents_is_queued(any_database, settings):
    parent = launch(any_database, settings, "parent")
    end(any_database, parent)
    child = launch(any_database, settings, "child", (parent,))
    assert row(any_database, child).state == states.QUEUED
    assert letters(any_database, child) == "B"


def test_arrow_C_the_last_of_two_parents_queues_the_child(any_database, settings):
    parents = launch(any_database, settings, "first"), launch(any_database, settings, "second")
    child = launch(any_database, settings, "child", parents)
    end(any_database, parents[0])
    assert row(any_database, child).state == states.WAITING
    end(any_database, parents[1])
    assert row(any_database, child).state == states.QUEUED
    assert letters(any_database, child) == "AC"


def test_arrow_C_two_parents_that_finish_at_once_queue_the_child(any_database, settings):
    for number in range(10):
        parents = [launch(any_database, settings, f"{name}{number}") for name in "ab"]
        child = launch(any_database, settings, f"c{number}", tuple(parents))
        mine = [claim(any_database), claim(any_database)]
        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(lambda run: do(any_database, lease.finish, run.id, run.attempt), mine))
        assert letters(any_database, child) == "AC"
        end(any_database, child)


def test_arrow_D_a_failed_parent_skips_all_that_need_it(any_database, settings):
    parent = launch(any_database, settings, "parent")
    child = launch(any_database, settings, "child", (parent,))
    grandchild = launch(any_database, settings, "grandchild", (child,))
    end(any_database, parent, lease.fail, DEATH)
    assert letters(any_database, child) == letters(any_database, grandchild) == "AD"


def test_arrow_E_what_was_skipped_waits_again_when_its_parent_is_resumed(any_database, settings):
    parent = launch(any_database, settings, "parent")
    child = launch(any_database, settings, "child", (parent,))
    grandchild = launch(any_database, settings, "grandchild", (child,))
    end(any_database, parent, lease.fail, DEATH)
    do(any_database, service.resume, parent)
    assert letters(any_database, child) == letters(any_database, grandchild) == "ADE"
    end(any_database, parent)
    assert row(any_database, child).state == states.QUEUED


def test_arrow_E_a_child_stays_skipped_while_another_parent_has_failed(any_database, settings):
    parents = launch(any_database, settings, "first"), launch(any_database, settings, "second")
    child = launch(any_database, settings, "child", parents)
    for parent in parents:
        end(any_database, parent, lease.fail, DEATH)
    do(any_database, service.retry, parents[0])
    assert row(any_database, child).state == states.SKIPPED


def test_arrow_F_runs_are_claimed_by_priority_and_then_by_age(any_database, settings):
    plain, later, urgent = (
        launch(any_database, settings, "plain"),
        launch(any_database, settings, "later"),
        launch(any_database, settings, "urgent", priority=5),
    )
    assert [claim(any_database).id for _ in range(3)] == [urgent, plain, later]
    assert claim(any_database) is None


def test_arrow_F_a_claim_counts_the_attempt_and_says_who_works(any_database, settings):
    run_id = launch(any_database, settings)
    run = claim(any_database, {"worker": "w", "device": "gpu-0"})
    assert (run.id, run.state, run.attempt, run.beat) == (run_id, states.RUNNING, 1, 0)
    assert run.claim == {"worker": "w", "device": "gpu-0"}
    assert run.started_at is not None


def test_a_run_is_claimed_once_however_many_claim_at_once(any_database, settings):
    runs = [launch(any_database, settings, f"run{number}") for number in range(12)]
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim(any_database), range(50)))
    assert sorted(run.id for run in claimed if run) == runs
    assert all(row(any_database, run).attempt == 1 for run in runs)


def test_arrow_G_a_dead_attempt_goes_back_to_the_queue_and_keeps_its_place(any_database, settings):
    run_id = launch(any_database, settings, "first")
    launch(any_database, settings, "second")
    run = claim(any_database)
    queued_at = run.queued_at
    assert do(any_database, lease.died, run_id, 1, DEATH, new_checkpoint=False)
    found = row(any_database, run_id)
    assert (found.state, found.fruitless, found.claim, found.error) == (states.QUEUED, 1, None, None)
    assert found.queued_at == queued_at
    assert claim(any_database).id == run_id


def test_arrow_G_a_shutdown_is_not_counted_against_the_run(any_database, settings):
    run_id = launch(any_database, settings)
    for number in range(1, 6):
        claim(any_database)
        assert do(any_database, lease.give_back, run_id, number, DEATH)
    assert row(any_database, run_id).fruitless == 0


def test_arrow_H_a_trainer_that_said_why_is_not_tried_again(any_database, settings):
    run_id = launch(any_database, settings)
    end(any_database, run_id, lease.fail, Failure(code="data", message="The file is empty.", hint="Fill it."))
    found = row(any_database, run_id)
    assert (found.state, found.error["message"]) == (states.FAILED, "The file is empty.")


def test_arrow_H_three_attempts_in_a_row_without_a_new_checkpoint_fail_the_run(any_database, settings):
    run_id = launch(any_database, settings)
    for number, new in enumerate([False, False, True, False, False], start=1):
        claim(any_database)
        assert do(any_database, lease.died, run_id, number, DEATH, new_checkpoint=new)
        assert row(any_database, run_id).state == states.QUEUED
    claim(any_database)
    assert do(any_database, lease.died, run_id, 6, DEATH, new_checkpoint=False)
    found = row(any_database, run_id)
    assert (found.state, found.attempt, found.fruitless) == (states.FAILED, 6, 3)
    assert found.error["message"].startswith("Three attempts in a row")


def test_arrow_I_a_run_that_is_stopped_while_queued_never_starts(any_database, settings):
    queued = launch(any_database, settings, "queued")
    waiting = launch(any_database, settings, "waiting", (queued,))
    do(any_database, service.stop, queued)
    assert letters(any_database, queued) == "BI"
    assert letters(any_database, waiting) == "AD"
    assert claim(any_database) is None


def test_arrow_J_a_running_run_hears_the_wish_at_its_next_beat(any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database)
    assert do(any_database, lease.beat, run_id, 1) == lease.Beat(alive=True, stop=False)
    do(any_database, service.stop, run_id)
    assert row(any_database, run_id).state == states.RUNNING
    assert do(any_database, lease.beat, run_id, 1) == lease.Beat(alive=True, stop=True)
    assert do(any_database, lease.stopped, run_id, 1)
    found = row(any_database, run_id)
    assert (found.state, found.desired_state) == (states.STOPPED, None)


def test_arrow_J_a_run_that_dies_after_it_was_asked_to_stop_is_stopped(any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database)
    do(any_database, service.stop, run_id)
    assert do(any_database, lease.died, run_id, 1, DEATH, new_checkpoint=False)
    assert letters(any_database, run_id) == "BFJ"
    do(any_database, service.resume, run_id)
    claim(any_database)
    do(any_database, service.stop, run_id)
    assert do(any_database, lease.give_back, run_id, 2, DEATH)
    assert letters(any_database, run_id) == "BFJLFJ"


def test_arrow_K_stop_races_finish_and_one_terminal_state_comes_of_it(any_database, settings):
    for number in range(100):
        run_id = launch(any_database, settings, f"run{number}")
        claim(any_database)
        gate = threading.Barrier(2)

        def stop(run_id=run_id, gate=gate):
            gate.wait()
            try:
                do(any_database, service.stop, run_id)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(stop)
            gate.wait()
            assert do(any_database, lease.finish, run_id, 1)
            asked.result()
        found = row(any_database, run_id)
        assert (found.state, found.desired_state, letters(any_database, run_id)) == (states.FINISHED, None, "BFK")


def test_arrow_L_resume_goes_on_and_retry_starts_from_nothing(any_database, settings):
    run_id = launch(any_database, settings)
    end(any_database, run_id, lease.fail, DEATH)
    do(any_database, service.resume, run_id)
    assert row(any_database, run_id).fresh is False
    end(any_database, run_id, lease.stopped)
    do(any_database, service.retry, run_id)
    found = row(any_database, run_id)
    assert (found.fresh, found.fruitless, found.error, found.summary) == (True, 0, None, {})
    assert letters(any_database, run_id) == "BFHLFJL"


def test_arrow_L_a_retry_stays_one_until_its_first_attempt_has_begun(any_database, settings):
    run_id = launch(any_database, settings)
    end(any_database, run_id, lease.stopped)
    do(any_database, service.retry, run_id)
    do(any_database, service.stop, run_id)
    do(any_database, service.resume, run_id)
    assert row(any_database, run_id).fresh is True
    assert claim(any_database).fresh is True
    assert do(any_database, lease.begun_afresh, run_id, 2)
    assert row(any_database, run_id).fresh is False


def test_arrow_M_a_stopped_child_waits_again_while_its_parent_is_unfinished(any_database, settings):
    parent = launch(any_database, settings, "parent")
    child = launch(any_database, settings, "child", (parent,))
    do(any_database, service.stop, child)
    do(any_database, service.resume, child)
    assert letters(any_database, child) == "AIM"
    end(any_database, parent)
    assert letters(any_database, child) == "AIMC"


@pytest.mark.parametrize("verb", [service.resume, service.retry, service.stop])
def test_what_cannot_be_done_is_refused_in_a_sentence(any_database, settings, verb):
    run_id = launch(any_database, settings)
    end(any_database, run_id)
    with pytest.raises(Conflict, match="is finished"):
        do(any_database, verb, run_id)
    assert letters(any_database, run_id) == "BFK"


def test_a_fenced_worker_changes_nothing(any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database)
    assert do(any_database, lease.expire, run_id, 1, 0, DEATH, new_checkpoint=False)
    claim(any_database)
    before = row(any_database, run_id).model_dump()
    assert do(any_database, lease.beat, run_id, 1) == lease.Beat(alive=False, stop=False)
    for verb, *arguments in ((lease.finish,), (lease.stopped,), (lease.fail, DEATH), (lease.give_back, DEATH)):
        assert not do(any_database, verb, run_id, 1, *arguments)
    assert not do(any_database, lease.died, run_id, 1, DEATH, new_checkpoint=False)
    assert not do(any_database, lease.begun_afresh, run_id, 1)
    assert row(any_database, run_id).model_dump() == before


def test_a_lease_does_not_expire_where_the_worker_has_beaten_meanwhile(any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database)
    do(any_database, lease.beat, run_id, 1)
    assert not do(any_database, lease.expire, run_id, 1, 0, DEATH, new_checkpoint=False)
    assert row(any_database, run_id).state == states.RUNNING


def test_events_are_numbered_without_gaps_and_the_row_knows_the_last(any_database, settings):
    run_id = launch(any_database, settings)
    end(any_database, run_id, lease.fail, DEATH)
    do(any_database, service.resume, run_id)
    assert [event.number for event in events(any_database, run_id)] == [1, 2, 3, 4]
    assert row(any_database, run_id).last_event == 4


def test_the_same_idempotency_key_at_once_launches_one_run(any_database, settings):
    launch(any_database, settings, "first")
    config = parse_config({"stage": "sft", "model": "new:micro", "dataset": "data:some"})
    gate = threading.Barrier(4)

    def click(number):
        gate.wait()
        with any_database.write() as session:
            experiment = experiments.get_or_create(session, "tests")
            new = service.NewRun("clicked", config, idempotency_key="the form's")
            return service.launch(session, experiment, new).id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(click, range(4)))) == 1
    with any_database.read() as session:
        assert len(session.exec(select(Run).where(Run.idempotency_key == "the form's")).all()) == 1


def test_committed_runs_are_rung_and_others_are_not(settings, database):
    rung = []
    database._ring = rung.append
    parent = launch(database, settings, "parent")
    launch(database, settings, "child", (parent,))
    assert rung == [parent]
    with pytest.raises(RuntimeError), database.write() as session:
        service.stop(session, parent)
        raise RuntimeError
    assert rung == [parent]
    assert row(database, parent).state == states.QUEUED


def test_a_run_with_dependants_is_deleted_only_with_them(any_database, settings):
    parent = launch(any_database, settings, "parent")
    child = launch(any_database, settings, "child", (parent,))
    with pytest.raises(Conflict, match="child"):
        do(any_database, service.delete, parent)
    assert sorted(do(any_database, service.delete, parent, with_dependants=True)) == [parent, child]
    with any_database.read() as session:
        assert not session.exec(select(Run)).all()
    assert not events(any_database, child)


def test_a_running_run_is_not_deleted(any_database, settings):
    run_id = launch(any_database, settings)
    claim(any_database)
    with pytest.raises(Conflict, match="still running"):
        do(any_database, service.delete, run_id)
    assert letters(any_database, run_id) == "BF"


def test_a_waiting_run_that_was_overlooked_is_put_right(any_database, settings):
    parent = launch(any_database, settings, "parent")
    child = launch(any_database, settings, "child", (parent,))
    run = claim(any_database)
    with any_database.write() as session:  # as if the parent's end and the child's launch had not seen each other
        states.move(session, parent, states.K, Run.attempt == run.attempt)
    assert row(any_database, child).state == states.WAITING
    do(any_database, graph.reconsider, child)
    assert row(any_database, child).state == states.QUEUED


def test_a_read_that_becomes_a_write_is_not_how_writes_are_made(database):
    """Two writers at once wait for each other instead of failing."""
    with database.write(), pytest.raises(DBAPIError), database.engine.connect() as other:
        other.exec_driver_sql("PRAGMA busy_timeout=1")
        other.exec_driver_sql("UPDATE run SET beat = 1")


def test_the_log_tells_a_change_in_a_persons_words() -> None:
    assert states.sentence(states.F, 2, {"claim": {"worker": "worker-1"}}) == "attempt 2 runs on worker-1"
    assert states.sentence(states.L, 2, {"fresh": False}) == "resumed: goes on from the last checkpoint"
    assert states.sentence(states.L, 2, {"fresh": True}) == "retried: begins again from nothing"
    assert states.sentence(states.K, 2, {"claim": None}) == "finished"
    assert all(states.sentence(arrow, 1, {}) for arrow in states.ARROWS)
