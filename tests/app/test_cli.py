"""The command line: exit codes, sentences, and what each verb does to the database."""

import json
import threading
from pathlib import Path

import orjson
import pytest
from sqlmodel import select

from app.cli.data import as_csv, by_step
from app.cli.logs import follow_lines
from app.models import Event, Run
from app.runs import states
from tests.app.command import preflab

SFT = ["--stage", "sft", "--set", "model=new:tiny"]


@pytest.fixture
def texts(tmp_path, monkeypatch, database):
    """A folder with texts.jsonl, and the data set `texts`."""
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text('{"text": "hello"}\n')
    assert preflab("import", "dataset", "texts.jsonl", "--name", "texts").code == 0
    return database


def launch(*more):
    done = preflab("launch", *SFT, "--set", "dataset=data:texts", *more, "--json")
    assert done.code == 0, done.err
    return done.json["runs"][0]["id"]


def state_of(database, run_id):
    with database.read() as session:
        run = session.get(Run, run_id)
        return run and run.state


def move(database, run_id, *arrows, **values):
    with database.write() as session:
        for arrow in arrows:
            assert states.move(session, run_id, arrow, **values)


def test_without_a_database_a_listing_says_how_to_make_one(tmp_path):
    done = preflab("runs", "list")
    assert (done.code, done.out) == (2, "")
    assert "preflab up" in done.err and not (tmp_path / "home").exists()


def test_launch_makes_the_database_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text('{"text": "hello"}\n')
    done = preflab("launch", *SFT, "--set", "dataset=path:texts.jsonl", "--json")
    assert done.code == 0
    assert done.json["runs"][0]["state"] == "queued"
    assert "No worker has been seen" in done.err


def test_a_database_of_a_newer_version_is_refused(texts):
    from sqlalchemy import text

    with texts.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for command in (["runs", "list"], ["launch", *SFT, "--set", "dataset=data:texts"]):
        done = preflab(*command)
        assert done.code == 1
        assert "9999" in done.err
    assert preflab("db", "check").code == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["launch"], "Give a preset or a file, or --stage."),
        (["launch", "x", "--stage", "sft"], "Give a preset or a file, or --stage."),
        (["launch", "no-such-preset"], "There is no preset and no readable file “no-such-preset”."),
        (["launch", "--stage", "ppo"], "There is no stage “ppo”."),
        (["launch", *SFT], "dataset: Needed."),
        (["launch", *SFT, "--set", "dataset"], "“dataset” is no setting."),
        (["launch", *SFT, "--set", "dataset=data:nothing"], "There is no data set “nothing”."),
        (["launch", *SFT, "--set", "dataset=data:texts", "--set", "epochs=-1"], "epochs: Must be above 0."),
        (["launch", *SFT, "--set", "dataset=data:texts", "--set", "lr=1"], "lr: There is no such setting."),
        (["launch", *SFT, "--set", "dataset=data:texts", "--name", "a b"], "cannot be a run's name"),
        (["launch", *SFT, "--set", "dataset=data:texts", "--experiment", "../x"], "An experiment's name"),
        (["launch", *SFT, "--set", "dataset=path:/etc/passwd"], "outside the folders that may be read"),
        (["launch", "demo", "--set", "dpo.beta=1"], "“dpo.beta” names no run of this experiment."),
        (["runs", "show", "77"], "There is no run “77”."),
        (["runs", "show", "playground/none"], "There is no run “playground/none”."),
        (["runs", "stop", "--", "-1"], "There is no run “-1”."),
        (["runs", "list", "--state", "happy"], "There is no state “happy”."),
        (["import", "dataset", "none.jsonl", "--name", "x"], "There is no file none.jsonl."),
        (["import", "dataset", ".", "--name", "x"], "is no plain file"),
        (["import", "dataset", "texts.jsonl", "--name", "../x"], "cannot be a data set's name"),
        (["token", "revoke", "77"], "There is no token 77."),
        (["db", "backup", "texts.jsonl"], "exists already"),
    ],
)
def test_wrong_input_ends_with_2_and_a_sentence(arguments, sentence, texts):
    done = preflab(*arguments)
    assert done.code == 2, done
    assert sentence in done.err.replace("\n", " ")
    assert "Traceback" not in done.err and done.out == ""


def test_values_are_yaml(texts):
    run = launch(
        "--set", "learning_rate=1e-3", "--set", "packing=false", "--set", "max_steps=7", "--set", "max_grad_norm=null"
    )
    config = preflab("runs", "show", str(run), "--json").json["config"]
    assert (config["learning_rate"], config["packing"], config["max_steps"]) == (0.001, False, 7)
    assert config["max_grad_norm"] is None


def test_a_list_of_data_sets_is_a_yaml_list(texts):
    done = preflab("launch", *SFT, "--set", "dataset=[data:texts, 'path:texts.jsonl?rows=1']", "--json")
    config = preflab("runs", "show", str(done.json["runs"][0]["id"]), "--json").json["config"]
    assert config["dataset"] == ["data:texts@1", "path:texts.jsonl?rows=1"]


def test_a_run_keeps_the_version_of_its_data_set_that_was_the_latest_when_it_was_launched(texts):
    first = launch()
    Path("texts.jsonl").write_text('{"text": "another"}\n')
    assert preflab("import", "dataset", "texts.jsonl", "--name", "texts", "--json").json["dataset"]["version"] == 2
    second = launch()
    configs = [preflab("runs", "show", str(run), "--json").json["config"]["dataset"] for run in (first, second)]
    assert configs == [["data:texts@1"], ["data:texts@2"]]


def test_runs_without_a_name_are_numbered(texts):
    launch()
    launch()
    rows = preflab("runs", "list", "--json").json["rows"]
    assert [(row["experiment"], row["name"]) for row in rows] == [("playground", "sft-2"), ("playground", "sft-1")]


def test_set_changes_one_run_of_an_experiment_file(texts):
    Path("e.yaml").write_text(
        "name: e\nruns:\n"
        "  a.b: {stage: sft, model: new:tiny, dataset: data:texts}\n"
        "  c: {stage: sft, model: run:a.b, dataset: data:texts}\n"
    )
    done = preflab("launch", "e.yaml", "--set", "a.b.epochs=3", "--name", "f", "--json")
    assert [(run["name"], run["state"]) for run in done.json["runs"]] == [("a.b", "queued"), ("c", "waiting")]
    assert preflab("runs", "show", "f/a.b", "--json").json["config"]["epochs"] == 3
    assert preflab("runs", "show", "f/c", "--json").json["config"]["epochs"] == 1
    again = preflab("launch", "e.yaml", "--name", "f")
    assert again.code == 2 and "an experiment “f” already" in again.err


def test_wait_ends_with_1_where_a_run_does_not_finish(texts):
    stopper = threading.Thread(target=lambda: stop_when_it_is_there(texts))
    stopper.start()
    done = preflab("launch", *SFT, "--set", "dataset=data:texts", "--wait", "--json")
    stopper.join()
    assert done.code == 1
    assert done.json["runs"][0]["state"] == "stopped"


def test_wait_ends_with_0_where_all_finish(texts):
    def finish():
        run = wait_for_run(texts)
        move(texts, run, states.F)
        move(texts, run, states.K)

    thread = threading.Thread(target=finish)
    thread.start()
    done = preflab("launch", *SFT, "--set", "dataset=data:texts", "--wait")
    thread.join()
    assert done.code == 0
    assert "finished" in done.out


def wait_for_run(database):
    while True:
        with database.read() as session:
            found = session.exec(select(Run.id)).first()
        if found is not None:
            return found


def stop_when_it_is_there(database):
    preflab_run = wait_for_run(database)
    move(database, preflab_run, states.I)


def test_stop_resume_and_retry_follow_the_arrows(texts):
    run = launch()
    assert preflab("runs", "stop", str(run)).out == "sft-1: stopped.\n"
    assert preflab("runs", "stop", str(run)).code == 2
    assert preflab("runs", "resume", "playground/sft-1").code == 0
    assert state_of(texts, run) == states.QUEUED
    assert preflab("runs", "retry", str(run)).code == 2
    move(texts, run, states.F)
    done = preflab("runs", "stop", str(run))
    assert done.out == "sft-1: running. It saves a checkpoint, then stops.\n"
    move(texts, run, states.J)
    assert preflab("runs", "retry", str(run)).code == 0


def test_delete_says_what_goes_and_asks(texts, settings):
    run = launch()
    folder = settings.run_folder(run)
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("x" * 2_000_000)
    (folder / "link").symlink_to(settings.home)
    refused = preflab("runs", "delete", str(run), stdin="n\n")
    assert refused.code == 1
    assert "sft-1" in refused.err and "2.0 MB" in refused.err
    assert state_of(texts, run) and folder.exists()
    assert preflab("runs", "delete", str(run), stdin="y\n").code == 0
    assert state_of(texts, run) is None
    assert not folder.exists() and settings.home.exists()


def test_a_run_that_others_need_goes_with_them_only_when_told(texts):
    run = launch("--name", "base", "--experiment", "e")
    child = launch("--name", "child", "--experiment", "e", "--set", "model=run:base")
    assert preflab("runs", "delete", str(run), "--yes").code == 2
    assert state_of(texts, child) == states.WAITING
    done = preflab("runs", "delete", str(run), "--yes", "--with-dependants", "--json")
    assert done.json == {"deleted": [run, child]}


def test_a_running_run_is_not_deleted(texts):
    run = launch()
    move(texts, run, states.F)
    done = preflab("runs", "delete", str(run), "--yes")
    assert done.code == 2 and "still running" in done.err


def test_clone_changes_what_is_set_and_nothing_else(texts):
    run = launch("--set", "seed=5")
    done = preflab("runs", "clone", str(run), "--set", "epochs=2", "--name", "copy", "--json")
    copy = preflab("runs", "show", str(done.json["runs"][0]["id"]), "--json").json["config"]
    old = preflab("runs", "show", str(run), "--json").json["config"]
    assert {key for key in old if old[key] != copy[key]} == {"epochs"}


def add_events(database, run_id, *events):
    with database.write() as session:
        run = session.get(Run, run_id)
        for kind, attempt, step, body in events:
            run.last_event += 1
            text = orjson.dumps(body).decode()
            session.add(
                Event(run_id=run_id, number=run.last_event, attempt=attempt, time=1.0, kind=kind, step=step, body=text)
            )


def test_a_later_attempt_replaces_what_earlier_ones_measured_from_its_first_step_on(texts):
    run = launch()
    add_events(
        texts,
        run,
        ("metrics", 1, 1, {"loss": 1.0}),
        ("metrics", 1, 1, {"eval_loss": 5.0}),
        ("metrics", 1, 2, {"loss": 2.0}),
        ("metrics", 1, 3, {"loss": 3.0}),
        ("log", 2, None, {"level": "info", "message": "not a metric"}),
        ("metrics", 2, 2, {"loss": 2.5}),
    )
    done = preflab("export", "metrics", str(run))
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["step"], row["attempt"], row["values"]) for row in rows] == [
        (1, 1, {"loss": 1.0, "eval_loss": 5.0}),
        (2, 2, {"loss": 2.5}),
    ]


def test_a_stopped_and_resumed_run_exports_every_step(texts):
    run = launch()
    add_events(
        texts,
        run,
        *[("metrics", 1, step, {"loss": float(step)}) for step in range(1, 6)],
        ("metrics", 2, 5, {"eval_loss": 0.5}),  # what was due at the checkpoint's step comes first
        *[("metrics", 2, step, {"loss": float(step)}) for step in range(6, 11)],
    )
    rows = [json.loads(line) for line in preflab("export", "metrics", str(run)).out.splitlines()]
    assert [(row["step"], row["values"]["loss"]) for row in rows] == [(step, float(step)) for step in range(1, 11)]
    assert rows[4]["values"] == {"loss": 5.0, "eval_loss": 0.5}


def test_metrics_as_a_table_run_no_formula(texts):
    run = launch()
    add_events(texts, run, ("metrics", 1, 1, {"=cmd()": 1.0, "loss": "NaN"}))
    assert preflab("export", "metrics", str(run), "--out", "m.csv").code == 0
    assert Path("m.csv").read_text() == "step,attempt,time,'=cmd(),loss\n1,1,1.0,1.0,\n"
    assert as_csv(by_step([])) == "step,attempt,time\n"


def test_a_run_without_metrics_exports_none(texts):
    assert preflab("export", "metrics", str(launch())).code == 2


def test_the_log_shows_what_the_run_said_and_what_happened_to_it(texts):
    run = launch()
    add_events(
        texts,
        run,
        ("log", 1, 5, {"level": "warning", "message": "The loss jumped."}),
        ("status", 1, None, {"phase": "training", "facts": {}}),
        ("bad_line", 1, None, {"reason": "not JSON", "text": "{"}),
        ("metrics", 1, 5, {"loss": 1.0}),
    )
    lines = [line.split(" ", 1)[1] for line in preflab("runs", "logs", str(run)).out.splitlines()]
    assert lines == [
        "state launched and queued",
        "log WARNING step 5: The loss jumped.",
        "status training",
        "bad_line WARNING A line of the journal could not be read: not JSON",
    ]


def test_following_a_log_misses_nothing_and_ends_with_the_run(texts):
    run = launch()
    lines = follow_lines(texts, run)
    assert next(lines)["kind"] == "state"
    move(texts, run, states.F)
    add_events(texts, run, ("log", 1, None, {"level": "info", "message": "hello"}))
    assert "runs on" in next(lines)["message"]
    assert next(lines)["message"] == "hello"
    move(texts, run, states.K)
    assert [line["message"] for line in lines] == ["finished"]


def test_the_backup_of_a_database_in_use_is_whole(texts):
    import sqlite3

    launch()
    with texts.write() as session:  # an open transaction does not stand in the way, and is not in the copy
        session.get(Run, 1).notes = "half done"
        session.flush()
        assert preflab("db", "backup", "copy.db").code == 0
    copy = sqlite3.connect("copy.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert copy.execute("SELECT notes FROM run").fetchall() == [("",)]
    copy.close()
    assert Path("copy.db").stat().st_mode & 0o077 == 0


def test_a_database_that_cannot_be_reached_is_said_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PREFLAB_DATABASE_URL", "postgresql+psycopg://nobody:secret@127.0.0.1:1/none")
    done = preflab("runs", "list")
    assert done.code == 1
    assert "The database cannot be reached." in done.err and "secret" not in done.err


def test_a_wrong_setting_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("PREFLAB_PORT", "many")
    done = preflab("runs", "list")
    assert done.code != 0 and "PREFLAB_PORT" in done.err
