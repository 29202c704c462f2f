"""The doctor names what is wrong and what to do, and never falls ill itself."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text

from app.models import Worker
from app.settings import Settings
from app.system import doctor
from tests.app.command import preflab


def by_name(settings):
    return {finding.check: finding for finding in doctor.examine(settings)}


def test_a_fresh_machine_is_well(tmp_path):
    settings = Settings(home=tmp_path / "none", min_free_disk_bytes=0)
    found = by_name(settings)
    assert list(found) == ["home", "disk", "database", "workers", "broker", "torch", "gpu", "flash-attention", "hub"]
    assert not [finding for finding in found.values() if not finding.ok]
    assert "preflab up" in found["home"].hint and not settings.home.exists()


def test_a_home_that_others_can_read_is_named(settings):
    settings.home.chmod(0o755)
    assert "chmod 700" in doctor.home(settings).hint


def test_a_home_that_cannot_be_written_is_named(settings):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by nobody but their owner
        home = Path(folder)
        home.chmod(0o555)
        child = os.fork()
        if child == 0:
            if os.geteuid() == 0:
                os.setuid(65534)  # root writes anywhere, nobody does not
            os._exit(17 if "cannot be written" in doctor.home(settings.model_copy(update={"home": home})).detail else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
        home.chmod(0o700)


def test_what_runs_share_is_weighed_and_said_to_be_spare(settings):
    assert "deleted" not in doctor.disk(settings).detail
    folder = settings.shared_folder / "reference"
    folder.mkdir()
    (folder / "a.npz").touch()
    os.truncate(folder / "a.npz", 300_000_000)
    assert f"{settings.shared_folder} holds 0.3 GB that can be deleted at any time." in doctor.disk(settings).detail


def test_a_nearly_full_disk_is_named(settings):
    assert not doctor.disk(settings.model_copy(update={"min_free_disk_bytes": 1 << 60})).ok


def test_an_old_database_says_how_to_upgrade(settings, database):
    with database.write() as session:
        session.execute(text("DELETE FROM alembic_version"))
    found = doctor.guarded(doctor.database, settings)
    assert not found.ok and found.hint == "Run `preflab db upgrade`."


def test_what_is_no_database_is_said_to_be_none(settings):
    (settings.home / "preflab.db").write_bytes(b"this is a text" * 1000)
    found = doctor.guarded(doctor.database, settings)
    assert not found.ok and "no database" in found.detail


def test_a_database_out_of_reach_is_said_to_be_so_without_its_password(settings):
    away = settings.model_copy(update={"database_url": "postgresql+psycopg://me:secret@127.0.0.1:1/x"})
    for check in (doctor.database, doctor.workers):
        found = doctor.guarded(check, away)
        assert not found.ok and "cannot be reached" in found.detail and "secret" not in found.detail + found.hint


def test_workers_that_were_seen_lately_are_counted(settings, database):
    import time

    with database.write() as session:
        for name, seen in (("new", time.time()), ("old", time.time() - 3600)):
            session.add(Worker(name=name, host="here", pid=1, started_at=0.0, seen_at=seen))
    assert doctor.workers(settings).detail == "1: new."


def test_a_redis_that_does_not_answer_is_named(settings):
    found = doctor.broker(settings.model_copy(update={"broker_url": "redis://:secret@127.0.0.1:1/0"}))
    assert not found.ok and "does not answer" in found.detail and "secret" not in found.detail
    assert not doctor.broker(settings.model_copy(update={"broker_url": "amqp://x"})).ok


@pytest.mark.redis
def test_a_redis_that_answers_is_well(settings, redis_url):
    found = doctor.broker(settings.model_copy(update={"broker_url": redis_url}))
    assert found.ok and found.detail.startswith("Redis ")


def test_without_torch_this_machine_can_show_pages_but_not_train():
    found = doctor.torch_finding(None)
    assert not found.ok and "preflab[train]" in found.hint
    assert not doctor.torch_finding({}).ok


@pytest.mark.parametrize(("major", "worth"), [(7, False), (8, True)])
def test_flash_attention_is_advised_where_it_pays(major, worth):
    torch = {"version": "2", "threads": 1, "devices": [{"name": "GPU", "gib": 80.0, "major": major}]}
    assert doctor.gpu_finding(torch).detail == "GPU (80 GiB)."
    assert bool(doctor.flash_attention(torch).hint) == worth


def test_the_doctor_asks_torch_in_another_process(settings):
    before = set(sys.modules)
    list(doctor.examine(settings))
    assert not any(name.partition(".")[0] == "torch" for name in set(sys.modules) - before)


def test_the_exit_code_says_whether_something_is_wrong(settings, monkeypatch):
    monkeypatch.setenv("PREFLAB_MIN_FREE_DISK_BYTES", "0")
    assert preflab("doctor").code == 0
    settings.home.chmod(0o777)
    done = preflab("doctor")
    assert done.code == 1 and "FAIL  home" in done.out
