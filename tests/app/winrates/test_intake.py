"""What a run made replaces what was said before of the same; what depends on an answer that is gone goes with it."""

import pytest
from sqlmodel import select

from app.experiments import service as experiments
from app.models import Prompt, Response, Score, Verdict
from app.winrates.intake import RowProblems, forget_answers, take_scores, take_verdicts
from app.winrates.rows import as_score, as_verdict
from tests.app.winrates.made import answer, answered, count, finish, run, the, verdict
from training.config import parse_config

HELD_OUT = "held_out"


@pytest.fixture
def runs(any_database):
    """Ids of runs of the experiment “e”: two that answer, two that judge."""
    with any_database.write() as session:
        return {
            name: run(session, name, parse_config(config)).id
            for name, config in (
                ("ask", {"stage": "respond", "model": "api:local/m"}),
                ("other", {"stage": "respond", "model": "api:local/o"}),
                ("judge", {"stage": "judge", "judge": "api:local/j"}),
                ("again", {"stage": "judge", "judge": "api:local/j"}),
            )
        }


def respond(database, rows, run_id):
    with database.write() as session:
        return finish(session, the(session), rows, run_id)


def judge(database, rows, run_id=None):
    """Verdicts, or scores where the rows have them."""
    with database.write() as session:
        owner = the(session).id
        if "score" in rows[0]:
            return take_scores(session, owner, HELD_OUT, [as_score(row) for row in rows], run_id)
        return take_verdicts(session, owner, HELD_OUT, [(n, as_verdict(row)) for n, row in enumerate(rows, 1)], run_id)


def score(prompt_id, model, value, judge="reward:r"):
    return {"prompt_id": prompt_id, "model": model, "judge": judge, "score": value}


def verdicts(database):
    with database.read() as session:
        statement = select(Prompt.prompt_id, Verdict.judge, Verdict.preference).join(Prompt)
        return sorted(map(tuple, session.exec(statement)))


def scores(database):
    with database.read() as session:
        statement = select(Prompt.prompt_id, Response.model, Score.judge, Score.score)
        found = session.exec(statement.join(Response, Response.id == Score.response_id).join(Prompt))
        return sorted(map(tuple, found))


def texts(database):
    with database.read() as session:
        found = session.exec(select(Prompt.prompt_id, Response.model, Response.text).join(Prompt))
        return {(prompt, model): text for prompt, model, text in found}


def test_a_second_finish_replaces_the_answers_and_what_was_said_of_those_that_changed(any_database, runs):
    respond(any_database, answered(["m"], 3, "old"), runs["ask"])
    respond(any_database, answered(["o"], 3, "other"), runs["other"])
    judge(any_database, [score(f"p{n}", model, 1.0) for n in range(3) for model in ("m", "o")], runs["judge"])
    judge(any_database, [verdict(f"p{n}", "o", "m", 1) for n in range(3)], runs["again"])
    judge(any_database, [verdict(f"p{n}", "m", "o", 1, "human:me") for n in range(3)])
    new = [answer("p0", "m", "new", ended=True), answer("p1", "m", "old", ended=True), answer("p2", "m", "new")]
    assert respond(any_database, new, runs["ask"]) == 0
    assert [texts(any_database)[f"p{n}", "m"] for n in range(3)] == ["new", "old", "new"]
    assert verdicts(any_database) == [("p1", "human:me", 1.0), ("p1", "llm:j", 1.0)]
    assert scores(any_database) == [
        ("p0", "o", "reward:r", 1.0),
        ("p1", "m", "reward:r", 1.0),
        ("p1", "o", "reward:r", 1.0),
        ("p2", "o", "reward:r", 1.0),
    ]
    with any_database.read() as session:
        kept = session.exec(select(Response).where(Response.model == "m").order_by(Response.prompt_key)).all()
    assert [(row.characters, row.ended, row.run_id) for row in kept] == [
        (3, True, runs["ask"]),
        (3, True, runs["ask"]),
        (3, None, runs["ask"]),
    ]


def test_what_a_run_answered_at_its_first_finish_and_not_at_its_second_goes(any_database, runs):
    respond(any_database, answered(["m@100", "m@last"], 2), runs["ask"])
    respond(any_database, answered(["o"], 2), runs["other"])
    judge(any_database, [verdict("p1", "m@last", "o", 1), verdict("p0", "o", "m@100", 1)], runs["judge"])
    respond(any_database, answered(["m@100"], 1), runs["ask"])
    assert sorted(texts(any_database)) == [("p0", "m@100"), ("p0", "o"), ("p1", "o")]
    assert verdicts(any_database) == [("p0", "llm:j", 1.0)]


def test_answers_of_another_run_that_says_the_same_are_that_runs_from_then_on(any_database, runs):
    respond(any_database, answered(["m"], 1), runs["ask"])
    respond(any_database, answered(["m"], 1), runs["other"])
    with any_database.write() as session:
        forget_answers(session, [runs["ask"]])
    assert count(any_database, Response) == [1]
    with any_database.write() as session:
        forget_answers(session, [runs["other"]])
    assert count(any_database, Response) == [0]


def test_a_runs_file_that_names_an_answer_twice_changes_nothing(any_database, runs):
    respond(any_database, answered(["m"], 2, "old"), runs["ask"])
    with pytest.raises(RowProblems, match="Line 2: “m” has an answer to the prompt “p0” already"):
        respond(any_database, [answer("p0", "m", "new"), answer("p0", "m", "newer")], runs["ask"])
    assert set(texts(any_database).values()) == {"old"}


def test_a_later_score_of_a_judge_takes_the_earlier_ones_place_and_other_judges_stay(any_database, runs):
    respond(any_database, answered(["m", "o"], 1), runs["ask"])
    judge(any_database, [score("p0", "m", 1.0), score("p0", "o", 2.0), score("p0", "m", 9.0, "checker")], runs["judge"])
    judge(any_database, [score("p0", "m", 5.0)], runs["again"])
    assert scores(any_database) == [
        ("p0", "m", "checker", 9.0),
        ("p0", "m", "reward:r", 5.0),
        ("p0", "o", "reward:r", 2.0),
    ]
    judge(any_database, [score("p0", "m", 6.0)], runs["judge"])  # its first finish scored "o" too, and by a checker
    assert scores(any_database) == [("p0", "m", "reward:r", 6.0)]


def test_a_score_of_an_answer_that_is_not_there_is_an_error(any_database, runs):
    respond(any_database, answered(["m"], 1), runs["ask"])
    for row in (score("p0", "x", 1.0), score("p9", "m", 1.0)):
        with pytest.raises(KeyError):
            judge(any_database, [row], runs["judge"])
    assert count(any_database, Score) == [0]


def test_a_later_run_of_a_judge_replaces_what_it_said_of_two_models_whichever_stood_first(any_database, runs):
    respond(any_database, answered(["m", "o", "x"], 2), runs["ask"])
    judge(any_database, [verdict("p0", "m", "o", 1), verdict("p1", "m", "o", 1), verdict("p0", "m", "x", 1)],
          runs["judge"])  # fmt: skip
    judge(any_database, [verdict("p0", "m", "o", 0.75, "human:me"), verdict("p0", "m", "o", 0.75, "llm:k")])
    judge(any_database, [verdict("p0", "o", "m", 0.25)], runs["again"])
    assert verdicts(any_database) == [
        ("p0", "human:me", 0.75),
        ("p0", "llm:j", 0.25),
        ("p0", "llm:j", 1.0),  # m against x
        ("p0", "llm:k", 0.75),
        ("p1", "llm:j", 1.0),
    ]


def test_a_judge_runs_second_finish_leaves_nothing_of_its_first(any_database, runs):
    respond(any_database, answered(["m", "o"], 3), runs["ask"])
    judge(any_database, [verdict(f"p{n}", "m", "o", 1) for n in range(3)], runs["judge"])
    judge(any_database, [verdict("p0", "m", "o", 0)], runs["judge"])
    assert verdicts(any_database) == [("p0", "llm:j", 0.0)]


def test_several_verdicts_of_one_file_on_the_same_two_answers_all_count(any_database, runs):
    respond(any_database, answered(["m", "o"], 1), runs["ask"])
    assert judge(any_database, [verdict("p0", "m", "o", 1), verdict("p0", "m", "o", 0)]) == 2
    assert judge(any_database, [verdict("p0", "m", "o", 1), verdict("p0", "m", "o", 0)], runs["judge"]) == 2
    assert len(verdicts(any_database)) == 4


def test_a_deleted_runs_answers_take_only_what_was_said_of_them_with_them(any_database, runs):
    respond(any_database, answered(["m"], 2), runs["ask"])
    respond(any_database, answered(["o", "x"], 2), runs["other"])
    judge(any_database, [verdict("p0", "m", "o", 1), verdict("p0", "o", "x", 1), verdict("p1", "x", "m", 1)])
    judge(any_database, [score("p0", "m", 1.0), score("p0", "o", 1.0)])
    with any_database.write() as session:
        forget_answers(session, [runs["ask"]])
    assert verdicts(any_database) == [("p0", "llm:j", 1.0)]
    assert scores(any_database) == [("p0", "o", "reward:r", 1.0)]


def test_more_answers_than_one_statement_takes_are_replaced_and_forgotten(any_database, runs):
    respond(any_database, answered(["m"], 1200, "old"), runs["ask"])
    respond(any_database, answered(["o"], 1200), runs["other"])
    judge(any_database, [verdict(f"p{n}", "m", "o", 1) for n in range(1200)], runs["judge"])
    judge(any_database, [score(f"p{n}", "m", 1.0) for n in range(1200)], runs["judge"])
    respond(any_database, answered(["m"], 1100, "new"), runs["ask"])
    assert count(any_database, Response, Score, Verdict) == [2300, 0, 0]


def test_answers_of_two_experiments_do_not_meet(any_database, runs):
    respond(any_database, answered(["m", "o"], 1), runs["ask"])
    with any_database.write() as session:
        other = experiments.get_or_create(session, "another")
        finish(session, other, answered(["m", "o"], 1, "Other."), runs["other"])
        take_verdicts(session, other.id, HELD_OUT, [(1, as_verdict(verdict("p0", "m", "o", 0)))], runs["judge"])
    judge(any_database, [verdict("p0", "m", "o", 1), verdict("p0", "m", "o", 1, "llm:k")], runs["again"])
    assert len(verdicts(any_database)) == 3
    respond(any_database, answered(["m", "o"], 1, "new"), runs["ask"])
    assert verdicts(any_database) == [("p0", "llm:j", 0.0)]
    with any_database.read() as session:
        assert sorted(session.exec(select(Response.text))) == ["Other.", "Other.", "new", "new"]
