"""What runs that answer and judge leave behind goes into the database as they finish, or not at all."""

import json
from typing import Any

import pytest
from sqlmodel import select

from app.datasets import service as datasets
from app.errors import Invalid
from app.experiments import service as experiments
from app.experiments import spec
from app.models import Prompt, Response, Score, Verdict
from app.runs import lease, service, states
from app.winrates import tables
from app.winrates.imports import import_responses
from app.winrates.intake import take_responses
from app.winrates.rows import as_response
from tests.worker.helpers import claim, row, scripted
from training.config import parse_config
from training.rundir import RunDir
from worker.devices import CPU
from worker.launcher import Attempt

SETTINGS = {"beat_seconds": 0.05, "lease_seconds": 20.0, "endpoints": {"local": "http://127.0.0.1:1/v1"}}
PROMPTS = [{"prompt_id": str(number), "prompt": f"What is {number}?"} for number in range(3)]
ANSWERS = "run_dir.outputs.mkdir(exist_ok=True); run_dir.responses.write_text({!r})"
SCORES = "run_dir.outputs.mkdir(exist_ok=True); run_dir.scores.write_text({!r})"
VERDICTS = "run_dir.outputs.mkdir(exist_ok=True); run_dir.verdicts.write_text({!r})"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update=SETTINGS)


@pytest.fixture
def answering(any_database, settings):
    """Two models that answer three prompts, and a judge of both: the names of the runs, by id."""
    data = settings.home / "prompts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    prompts = f"path:{data}"
    content = {
        "name": "answering",
        "baseline": "one",
        "runs": {
            "ask-one": {"stage": "respond", "model": "api:local/one", "prompts": prompts},
            "ask-two": {"stage": "respond", "model": "api:local/two", "prompts": prompts},
            "judge": {"stage": "judge", "judge": "api:local/judge"},
        },
    }
    settings = settings.model_copy(update={"allowed_paths": [settings.home]})
    with any_database.write() as session:
        _, runs = experiments.launch(session, settings, spec.parse_spec(content))
        return settings, {run.name: run.id for run in runs}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def answers(model: str, text: str = "It is {}.") -> str:
    rows = [
        {"prompt_id": each["prompt_id"], "model": model, "prompt": [{"role": "user", "content": each["prompt"]}],
         "response": text.format(each["prompt_id"]), "ended": True, "tokens": 4}
        for each in PROMPTS
    ]  # fmt: skip
    return ANSWERS.format(lines(rows))


def verdicts(preferences: list[float], judge: str = "llm:judge") -> str:
    rows = [
        {"prompt_id": each["prompt_id"], "model_a": "two", "model_b": "one", "judge": judge, "preference": preference}
        for each, preference in zip(PROMPTS, preferences, strict=True)
    ]
    return VERDICTS.format(lines(rows))


def work(database, settings, run_id, script):
    """Let the next run, which must be this one, go through one attempt."""
    run = claim(database)
    assert run is not None and run.id == run_id
    attempt = Attempt(database, settings, run, CPU, lambda: False, scripted(script))
    attempt.run()
    return attempt


def answered(database, settings, runs):
    work(database, settings, runs["ask-one"], answers("one"))
    work(database, settings, runs["ask-two"], answers("two", "Well, it is {}."))


def count(database, table):
    with database.read() as session:
        return len(session.exec(select(table)).all())


def test_a_judge_run_waits_for_all_answers_and_is_given_them(any_database, answering):
    settings, runs = answering
    assert row(any_database, runs["judge"]).state == states.WAITING
    answered(any_database, settings, runs)
    assert row(any_database, runs["judge"]).state == states.QUEUED
    work(any_database, settings, runs["judge"], verdicts([1, 1, 0]))
    run_dir = RunDir(settings.run_folder(runs["judge"]))
    given = [json.loads(line) for line in run_dir.given_responses.read_text().splitlines()]
    assert sorted((each["prompt_id"], each["model"]) for each in given) == [
        (prompt, model) for prompt in "012" for model in ("one", "two")
    ]
    assert given[0]["prompt"] == [{"role": "user", "content": "What is 0?"}]
    assert run_dir.read_config().config["baseline"] == "one"


def test_a_judge_of_pairs_that_is_launched_later_compares_with_the_experiments_baseline(any_database, answering):
    settings, runs = answering
    answered(any_database, settings, runs)
    with any_database.write() as session:
        for name, asked in (("usual", {}), ("other", {"baseline": "two"})):
            config = parse_config({"stage": "judge", "judge": "api:local/again", **asked})
            runs[name] = experiments.launch_one(session, settings, config, experiment="answering", name=name).id
    assert [row(any_database, runs[name]).config["baseline"] for name in ("usual", "other")] == ["one", "two"]


def test_a_judge_that_is_launched_alone_waits_for_the_answers_that_are_being_made(any_database, answering):
    settings, runs = answering
    config = parse_config({"stage": "judge", "judge": "api:local/again"})
    with any_database.write() as session:
        later = experiments.launch_one(session, settings, config, experiment="answering", name="later").id
    assert row(any_database, later).state == states.WAITING
    answered(any_database, settings, runs)
    assert row(any_database, later).state == states.QUEUED


def test_a_judge_is_refused_where_there_are_no_answers_and_none_are_coming(any_database, settings):
    config = parse_config({"stage": "judge", "judge": "api:local/again"})
    with any_database.write() as session, pytest.raises(Invalid, match="no answers") as caught:
        experiments.launch_one(session, settings, config, experiment="empty")
    assert list(caught.value.fields) == ["responses"]


def test_answers_and_verdicts_are_in_the_table_as_soon_as_the_run_has_finished(any_database, answering):
    settings, runs = answering
    answered(any_database, settings, runs)
    work(any_database, settings, runs["judge"], verdicts([1, 1, 0]))
    assert row(any_database, runs["judge"]).state == states.FINISHED
    with any_database.read() as session:
        found = tables.winrate(session, experiments.by_name(session, "answering"))
    assert (found.judge, found.baseline) == ("llm:judge", "one")
    (two,) = found.rows
    assert (two["model"], two["n"], two["wins"], two["losses"]) == ("two", 3, 2, 1)
    assert two["mean_length"] == len("Well, it is 0.")


def test_a_fenced_attempt_leaves_nothing_in_the_tables(any_database, answering):
    settings, _ = answering
    run = claim(any_database)
    attempt = Attempt(any_database, settings, run, CPU, lambda: False, scripted(answers("one")))
    with any_database.write() as session:  # somebody else has the run by now
        session.get_one(type(run), run.id).attempt += 1
    attempt.run()
    assert (count(any_database, Prompt), count(any_database, Response)) == (0, 0)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("pass", "no answers"),
        (ANSWERS.format('{"prompt_id": "0", "model": "one"}\n'), "responses.jsonl cannot be read"),
        (ANSWERS.format(lines([{"prompt_id": "0", "model": "one", "response": text} for text in "ab"])), "already"),
    ],
    ids=["nothing", "a row without an answer", "two answers to a prompt"],
)
def test_outputs_that_are_not_whole_fail_the_run_and_leave_nothing(any_database, answering, script, said):
    settings, runs = answering
    work(any_database, settings, runs["ask-one"], script)
    found = row(any_database, runs["ask-one"])
    assert (found.state, found.error["code"]) == (states.FAILED, "incomplete")
    assert said in found.error["message"] and not found.error["message"].endswith("..")
    assert count(any_database, Prompt) == count(any_database, Response) == 0


def test_verdicts_on_an_answer_that_is_gone_fail_the_run_and_leave_nothing(any_database, answering):
    settings, runs = answering
    answered(any_database, settings, runs)
    wrong = verdicts([1, 1, 0]).replace("two", "three")
    work(any_database, settings, runs["judge"], wrong)
    found = row(any_database, runs["judge"])
    assert found.state == states.FAILED and "“three” has no answers" in found.error["message"]
    assert count(any_database, Verdict) == 0


def test_a_retried_judge_replaces_what_it_said_before_and_people_stay(any_database, answering):
    settings, runs = answering
    answered(any_database, settings, runs)
    work(any_database, settings, runs["judge"], verdicts([1, 1, 0]))
    with any_database.write() as session:
        prompt = session.exec(select(Prompt)).first()
        session.add(Verdict(prompt_key=prompt.id, model_a="one", model_b="two", judge="human:me", preference=0.0))
        session.get_one(type(row(any_database, runs["judge"])), runs["judge"]).state = states.STOPPED
    with any_database.write() as session:
        service.retry(session, runs["judge"])
    work(any_database, settings, runs["judge"], verdicts([0, 0, 0]))
    with any_database.read() as session:
        said = [(each.judge, each.preference) for each in session.exec(select(Verdict).order_by(Verdict.judge))]
    assert said == [("human:me", 0.0), *[("llm:judge", 0.0)] * 3]


def test_a_model_that_answers_anew_loses_the_scores_of_its_old_answers(any_database, answering):
    settings, runs = answering
    answered(any_database, settings, runs)
    rows = [
        {"prompt_id": each["prompt_id"], "model": model, "judge": "llm:judge", "score": score}
        for each in PROMPTS for model, score in (("one", 1.0), ("two", 2.0))
    ]  # fmt: skip
    work(any_database, settings, runs["judge"], SCORES.format(lines(rows)))
    assert count(any_database, Score) == 6
    with any_database.write() as session:
        session.get_one(type(row(any_database, runs["ask-two"])), runs["ask-two"]).state = states.STOPPED
    with any_database.write() as session:
        service.retry(session, runs["ask-two"])
    work(any_database, settings, runs["ask-two"], answers("two", "Now {}."))
    with any_database.read() as session:
        texts = {each.text for each in session.exec(select(Response).where(Response.model == "two"))}
    assert texts == {"Now 0.", "Now 1.", "Now 2."}
    assert count(any_database, Score) == 3


@pytest.mark.parametrize("outputs", ["scores", "verdicts"])
def test_what_a_judge_said_of_answers_that_were_replaced_meanwhile_is_not_taken_for_the_new_ones(
    any_database, answering, outputs
):
    settings, runs = answering
    answered(any_database, settings, runs)
    work(any_database, settings, runs["judge"], "os._exit(1)")  # it has its answers, and goes on with these
    with any_database.write() as session:
        owner = experiments.by_name(session, "answering")
        prompts = session.exec(select(Prompt.set_name)).first()
        anew = as_response({"prompt_id": "1", "model": "two", "response": "Other words."})
        others = [as_response({"prompt_id": key, "model": "two", "response": f"Well, it is {key}."}) for key in "02"]
        take_responses(session, owner.id, prompts, list(enumerate([anew, *others], 1)), runs["ask-two"])
    said = lines(
        [{"prompt_id": each["prompt_id"], "model": "two", "judge": "reward:r", "score": 1.0} for each in PROMPTS]
    )
    script = SCORES.format(said) if outputs == "scores" else verdicts([1, 1, 0])
    work(any_database, settings, runs["judge"], script)
    found = row(any_database, runs["judge"])
    assert (found.state, found.error["code"]) == (states.FAILED, "incomplete")
    assert "1 of the answers that it judged has been replaced since: that of “two” to the prompt “1”" in str(
        found.error
    )
    assert (count(any_database, Score), count(any_database, Verdict)) == (0, 0)
    with any_database.write() as session:
        service.retry(session, runs["judge"])  # it is given the answers as they are now
    work(any_database, settings, runs["judge"], script)
    assert row(any_database, runs["judge"]).state == states.FINISHED


def test_a_deleted_run_takes_its_answers_and_what_was_said_of_them_with_it(any_database, answering):
    settings, runs = answering
    answered(any_database, settings, runs)
    work(any_database, settings, runs["judge"], verdicts([1, 1, 0]))
    with any_database.write() as session:
        prompt = session.exec(select(Prompt)).first()
        session.add(Verdict(prompt_key=prompt.id, model_a="one", model_b="two", judge="human:me", preference=0.0))
    with any_database.write() as session:
        service.delete(session, runs["ask-two"], with_dependants=True)
    with any_database.read() as session:
        assert {each.model for each in session.exec(select(Response))} == {"one"}
    assert count(any_database, Verdict) == 0


def test_a_run_that_keeps_finishing_works_is_not_given_up(any_database, answering):
    """Three attempts in a row without progress end a run: each of these keeps one work more."""
    settings, runs = answering
    one_more = """
from training.worklog import WorkLog
log = WorkLog(run_dir.work); log.begin([str(run.attempt)]); log.finish({str(run.attempt): 1}); os._exit(1)
"""
    for number in range(1, 5):
        work(any_database, settings, runs["ask-one"], one_more)
        assert (row(any_database, runs["ask-one"]).state, number) == (states.QUEUED, number)
    for _ in range(3):
        work(any_database, settings, runs["ask-one"], "os._exit(1)")
    assert row(any_database, runs["ask-one"]).state == states.FAILED


def test_only_the_keys_of_its_own_endpoints_are_in_a_trainers_environment(any_database, answering, monkeypatch):
    settings, runs = answering
    monkeypatch.setenv("PREFLAB_KEY_LOCAL", "sk-local")
    monkeypatch.setenv("PREFLAB_KEY_OTHER", "sk-other")
    script = "(run_dir.root / 'seen').write_text(str({k: v for k, v in os.environ.items() if 'KEY' in k}))"
    work(any_database, settings, runs["ask-one"], script)
    root = settings.run_folder(runs["ask-one"])
    assert (root / "seen").read_text() == "{'PREFLAB_KEY_LOCAL': 'sk-local'}"
    told = (root / "config.json").read_text()
    assert "http://127.0.0.1:1/v1" in told and "sk-local" not in told


def test_two_runs_may_not_call_their_answers_the_same(any_database, answering):
    settings, _ = answering
    ask = {"stage": "respond", "model": "api:local/one", "prompts": f"path:{settings.home}/prompts.jsonl"}
    config = spec.parse_spec({"name": "again", "runs": {"a": ask, "b": ask}})
    with any_database.write() as session, pytest.raises(Invalid) as caught:
        experiments.launch(session, settings, config)
    assert list(caught.value.fields) == ["b.shown_as"]
    assert "The answers of “a” to these prompts are called “one” already" in caught.value.fields["b.shown_as"]


def test_answers_to_the_same_version_of_a_data_set_may_not_be_called_the_same(any_database, answering):
    settings, _ = answering
    file = settings.home / "prompts.jsonl"
    datasets.import_file(any_database, settings, file, "asked")
    config = parse_config({"stage": "respond", "model": "api:local/one", "prompts": "data:asked"})
    with any_database.write() as session:
        experiments.launch_one(session, settings, config, experiment="again", name="a")
    with any_database.write() as session, pytest.raises(Invalid) as caught:
        experiments.launch_one(session, settings, config, experiment="again", name="b")
    assert list(caught.value.fields) == ["shown_as"]
    file.write_text(file.read_text() + json.dumps({"prompt_id": "9", "prompt": "What is 9?"}) + "\n")
    datasets.import_file(any_database, settings, file, "asked")  # its second version is another set
    with any_database.write() as session:
        experiments.launch_one(session, settings, config, experiment="again", name="b")


def test_a_run_may_not_be_called_as_imported_answers_are(any_database, answering, tmp_path):
    settings, _ = answering
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"prompt_id": "0", "model": "one", "response": "Imported."}) + "\n")
    prompts = f"path:{settings.home}/prompts.jsonl"
    import_responses(any_database, file, "again", prompts)
    ask = {"stage": "respond", "model": "api:local/one", "prompts": prompts}
    with any_database.write() as session, pytest.raises(Invalid) as caught:
        experiments.launch_one(session, settings, parse_config(ask), experiment="again")
    assert caught.value.fields == {
        "shown_as": "Imported answers to these prompts are called “one” already: choose another name."
    }
    with any_database.write() as session:
        experiments.launch_one(session, settings, parse_config({**ask, "shown_as": "another"}), experiment="again")


def test_arrow_K_of_a_run_that_was_stopped_meanwhile_takes_nothing_in(any_database, answering):
    settings, _ = answering
    run = claim(any_database)
    with any_database.write() as session:
        assert lease.stopped(session, run.id, run.attempt)
    attempt = Attempt(any_database, settings, run, CPU, lambda: False, scripted(answers("one")))
    attempt.run()
    assert count(any_database, Response) == 0
