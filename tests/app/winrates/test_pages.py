"""The pages of results: what they say where there is little, that nothing on them is markup, and what they ask the
database for."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.db import Database
from app.experiments import service as experiments
from app.models import Run
from app.runs import states
from app.runs.queries import colour, row, work_of
from app.winrates import rails
from app.winrates.intake import take_scores
from app.winrates.rows import as_score
from tests.app.winrates.made import Bring, Row, answer, answered, finish, run, said, the, verdict
from training.config import parse_config

ODD = "<script>alert(1)</script>"


@pytest.fixture
def given(database: Database, tmp_path: Path) -> Bring:
    """Files that come into the database of the application under test."""
    return Bring(database, tmp_path)


def show(browser: TestClient, path: str = "", **query: object) -> str:
    """A page of the first experiment, as its HTML."""
    page = browser.get(f"/experiments/1{path}" + (f"?{urlencode(query)}" if query else ""))
    assert page.status_code == 200
    return page.text


def words(page: str) -> str:
    """What a reader sees of a page's main part, on one line."""
    main = page[page.index("<main") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())


def three(given: Bring, prompts: int = 8) -> None:
    """a and b against base by two judges: a wins all but one by the first, none by the second."""
    given.responses(answered(["base", "a", "b"], prompts))
    rows = [*said("a", "base", [1] * (prompts - 1) + [0]), *said("b", "base", [0.5] * prompts)]
    given.verdicts([*rows, *said("a", "base", [0] * prompts, "reward:r")])


# -- where there is little


def test_an_experiment_without_answers_says_what_makes_a_result(browser: TestClient, database: Database) -> None:
    with database.write() as session:
        experiments.create(session, "e")
    page = words(show(browser))
    assert "There is no result yet: no model has answered prompts." in page
    assert "Launch a respond run" in page and "preflab import responses FILE --experiment e" in page
    assert "No model has answered prompts here yet" in words(show(browser, "/answers"))
    assert "Nobody has judged answers here yet" in words(show(browser, "/leaderboard"))
    assert "Nobody has judged answers here yet" in words(show(browser, "/agreement"))


def test_answers_that_nobody_judged_are_counted_and_can_be_read(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["a", "b"], 3))
    page = show(browser)
    assert "Nobody has judged the answers yet. 6 answers of 2 models to 3 prompts are there." in words(page)
    assert "/runs/new?stage=judge&amp;experiment=e" in page and "preflab import verdicts" in page
    assert "Yes." in words(show(browser, "/answers")) and "not judged" in words(show(browser, "/answers"))


def test_answers_of_one_model_wait_for_a_second_one(browser: TestClient, given: Bring) -> None:
    given.responses([answer("p0", "a", "Once.")])
    assert "A win rate needs a second model's answers to the same prompts." in words(show(browser))
    assert words(show(browser, "/answers")).count("Once.") == 1


def test_a_judge_that_scored_one_model_alone_is_told_to_go_on(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["a", "b"], 2))
    with given.database.write() as session:
        row = as_score({"prompt_id": "p0", "model": "a", "judge": "reward:r", "score": 1.0})
        take_scores(session, the(session).id or 0, "imported", [row])
    page = words(show(browser))
    assert "Only a has been judged here , so there is nothing to hold it against." in page


def test_of_several_judges_the_first_is_shown_and_the_others_are_offered(browser: TestClient, given: Bring) -> None:
    three(given)
    page = show(browser)
    assert '<option value="llm:j" selected>' in page and '<option value="reward:r">' in page
    assert "a wins 87.5 % against base" in words(page)
    for judge in ("reward:r", "reward"):
        assert "a wins 0.0 % against base" in words(show(browser, judge=judge, baseline="base"))


def test_without_a_baseline_of_its_own_the_model_most_judged_is_the_baseline(browser: TestClient, given: Bring) -> None:
    three(given)
    assert '<option value="base" selected>' in show(browser)
    page = show(browser, baseline="a")
    assert '<option value="a" selected>' in page and "base wins 12.5 % against a" in words(page)


def test_the_experiments_own_judge_and_baseline_come_first(browser: TestClient, given: Bring) -> None:
    three(given)
    with given.database.write() as session:
        the(session).spec = {"primary_judge": "reward", "baseline": "a"}
    page = show(browser)
    assert '<option value="reward:r" selected>' in page and '<option value="a" selected>' in page


def test_what_is_asked_for_and_not_there_is_named_and_something_else_shown(browser: TestClient, given: Bring) -> None:
    three(given)
    page = words(show(browser, judge="llm:ghost", baseline="spirit", prompts="elsewhere"))
    assert "“llm:ghost” has judged nothing here." in page
    assert "llm:j has said nothing of spirit on these prompts: the others are held against base." in page
    assert "There is no prompt set “elsewhere” here: this is imported." in page
    assert "a wins 87.5 % against base" in page
    assert "There are no answers of “spirit” here: these are of base." in words(
        show(browser, "/answers", baseline="spirit")
    )


def test_the_experiments_own_judge_is_missed_aloud(browser: TestClient, given: Bring) -> None:
    three(given)
    with given.database.write() as session:
        the(session).spec = {"primary_judge": "human", "baseline": "ghost"}
    page = words(show(browser))
    assert "The experiment's own judge, human, has not judged these answers: this is llm:j." in page
    assert "llm:j has said nothing of ghost" in page


def test_of_several_prompt_sets_one_is_shown_and_the_others_are_offered(browser: TestClient, given: Bring) -> None:
    for name in ("maths", "chat"):
        given.responses(answered(["a", "b"], 2), prompts=name)
        given.verdicts(said("a", "b", [1, 1 if name == "chat" else 0]), prompts=name)
    assert '<option value="chat" selected>' in show(browser)
    page = show(browser, prompts="maths")
    assert '<option value="maths" selected>' in page
    assert "prompts=maths" in re.findall(r'href="(/experiments/1/answers[^"]*)"', page)[0]


def test_verdicts_without_answers_make_a_result_and_say_that_there_is_no_text(
    browser: TestClient, given: Bring
) -> None:
    given.verdicts(said("a", "b", [1, 1, 0]))
    assert "Win rate against" in words(show(browser))
    page = words(show(browser, "/answers", model="a", baseline="b"))
    assert "What was asked is not here" in page and "no answer" in page and "a is better" in page


def test_runs_under_way_are_named_beside_the_result(browser: TestClient, given: Bring) -> None:
    three(given)
    with given.database.write() as session:
        config = parse_config({"stage": "judge", "judge": "hf:me/rm"})
        run(session, "second-judge", config, state=states.RUNNING)
    page = show(browser)
    assert "second-judge" in page[page.index('id="result"') : page.index('id="rows"')]


def test_pages_of_an_experiment_that_is_not_there_say_so(browser: TestClient) -> None:
    for path in ("", "/answers", "/leaderboard", "/agreement"):
        assert browser.get(f"/experiments/7{path}").status_code == 404


# -- what is on the pages


def test_no_name_and_no_answer_is_markup(browser: TestClient, given: Bring) -> None:
    rows = [
        answer(f"p{n}", model, f"{ODD} of {n}", prompt=f"{ODD}?", category=ODD, reference=ODD)
        for n in range(3)
        for model in (f"{ODD}", "b")
    ]
    given.responses(rows, prompts=f"set{ODD}")
    judge = f"llm:{ODD}"
    votes = said(ODD, "b", [0, 0.5, 1], f"human:{ODD}")
    given.verdicts(
        [verdict(f"p{n}", ODD, "b", n / 2, judge, reason=ODD) for n in range(3)] + votes, prompts=f"set{ODD}"
    )
    with given.database.write() as session:
        the(session).question = ODD
    for path in ("", "/answers", "/leaderboard", "/agreement"):
        for query in ({}, {"judge": judge}, {"judge": ODD, "baseline": ODD, "prompts": ODD}):
            page = show(browser, path, **query)
            assert "<script>alert" not in page, (path, query)
            assert html.escape(ODD) in page


def test_a_model_has_the_colour_of_the_run_that_trained_it(browser: TestClient, database: Database) -> None:
    with database.write() as session:
        data = {"dataset": "hf:me/data"}
        filler = run(session, "filler", parse_config({"stage": "sft", "model": "hf:me/m", **data}))
        tuned = run(session, "tuned", parse_config({"stage": "sft", "model": "hf:me/m", **data}))
        owner = the(session)
        for name, model in (("of-tuned", "run:tuned"), ("of-hub", "hf:me/base")):
            config = parse_config({"stage": "respond", "model": model})
            made = run(session, name, config)
            finish(session, owner, answered([name], 2), made.id or 0)
        ids = [each.id or 0 for each in (filler, tuned, made)]
    bring = Bring(database, Path(database.engine.url.database or "").parent)
    bring.verdicts(said("of-tuned", "of-hub", [1, 1]), prompts="held_out")
    row = re.findall(r'<td class="model">.*?</td>', show(browser))[0]
    assert f"run-{colour(ids[1])}" in row and "of-tuned" in row
    page = show(browser, "/answers", model="of-tuned")
    assert f'trained by <a href="/runs/{ids[1]}">tuned</a>' in page
    assert f'answers by <a href="/runs/{ids[2]}">of-hub</a>' in page


def test_wins_losses_and_ties_lead_to_as_many_prompts(browser: TestClient, given: Bring) -> None:
    three(given, prompts=23)
    page = show(browser)
    links = dict(re.findall(r'href="([^"]*model=a[^"]*)" aria-label="(\d+ \w+)"', page))
    assert sorted(links.values()) == ["0 tied", "1 lost", "22 won"]
    for address, label in links.items():
        found = browser.get(html.unescape(address)).text
        count = int(label.split()[0])
        assert found.count('class="compared"') == min(20, count)
        assert count == 0 or f"of {count}" in found


def test_the_table_can_be_copied_as_markdown(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["base", "a|b"], 8))
    given.verdicts(said("a|b", "base", [1] * 7 + [0]))
    page = show(browser, baseline="base")
    text = html.unescape(page.split('id="result-markdown" hidden>')[1].split("</pre>")[0])
    assert text.startswith("Win rate against base, judged by llm:j, prompts: imported.")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0].startswith("| Model | Win rate | 95 % interval | W / L / T |")
    assert lines[2].startswith(r"| a\|b | 87.5 % | 52.9 to 97.8 | 7 / 1 / 0 |")
    assert {line.replace(r"\|", "").count("|") for line in lines} == {lines[0].count("|")}


def test_a_page_of_answers_holds_twenty_prompts_in_the_sets_order(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["a", "b"], 45))
    pages = [show(browser, "/answers", page=number) for number in (1, 2, 3, 99, "x")]
    ids = [re.findall(r"· (p\d+)", page) for page in pages]
    assert ids[:3] == [[f"p{n}" for n in some] for some in (range(20), range(20, 40), range(40, 45))]
    assert ids[3] == ids[2] and ids[4] == ids[0]
    assert 'rel="next"' in pages[0] and 'rel="prev"' not in pages[0] and 'rel="next"' not in pages[2]


def test_a_category_and_an_outcome_filter_together(browser: TestClient, given: Bring) -> None:
    given.responses(
        [
            answer(f"p{n}", model, category="maths" if n % 2 else "chat", prompt="Q?")
            for n in range(6)
            for model in ("a", "b")
        ]
    )
    given.verdicts(said("a", "b", [1, 1, 0, 0, 0.5, None]))
    page = show(browser, "/answers", model="a", baseline="b", outcome="lost", category="maths")
    assert re.findall(r"· (p\d+)", page) == ["p3"]
    tabs = words(page[page.index('aria-label="Outcome"') : page.index("<article")].join(["<main>", ""]))
    assert "all 3 won 1 lost 1 not judged 1" in tabs
    nothing = words(show(browser, "/answers", model="a", baseline="b", outcome="tied", category="maths"))
    assert "No prompt is like this" in nothing


def test_empty_and_cut_answers_are_said_to_be_so(browser: TestClient, given: Bring) -> None:
    given.responses(
        [
            answer("p0", "a", " \n"),
            answer("p0", "b", "Half of it", ended=False, tokens=3),
            *answered(["a", "b"], 5)[2:],
        ]
    )
    page = show(browser, "/answers", model="a", baseline="b", outcome="empty")
    assert page.count('class="compared"') == 1
    assert "empty answer" in words(page) and "10 characters · 3 tokens · cut" in words(page)


def test_text_keeps_its_spaces_its_direction_and_is_cut_where_it_never_ends(browser: TestClient, given: Bring) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "مرحبا"}]
    given.responses([answer("p0", "a", "one\n\n   two", prompt=turns), answer("p0", "b", "ab" * 15_000)])
    page = show(browser, "/answers", model="a", baseline="b")
    assert '<div class="pre answer-text" dir="auto">one\n\n   two</div>' in page
    assert '<span class="role">system</span><div class="pre" dir="auto">Be brief.</div>' in page
    assert '<div class="pre" dir="auto">مرحبا</div>' in page
    assert "ab" * 10_000 in page and "ab" * 10_001 not in page
    assert "… 10,000 more characters" in words(page) and "30,000 characters" in words(page)


def test_what_people_said_is_pooled_and_each_is_shown(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["a", "b"], 2))
    votes: list[Row] = [
        verdict("p0", "a", "b", 1, "human:ada"),
        verdict("p0", "b", "a", 1, "human:ben", reason="Too long"),
        verdict("p0", "a", "b", 1, "human:chi"),
    ]
    given.verdicts(votes)
    page = words(show(browser, "/answers", model="a", baseline="b", judge="human", outcome="won"))
    assert "a is better: preference 0.67 for a, mean of 3 verdicts" in page
    assert "human:ada a is better human:ben b is better Too long human:chi a is better" in page


def test_scores_of_a_judge_stand_at_their_answers(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["a", "b"], 2))
    with given.database.write() as session:
        scores = {("p0", "a"): 1.5, ("p0", "b"): -0.25, ("p1", "a"): 2.0, ("p1", "b"): 2.0}
        rows = [
            as_score({"prompt_id": p, "model": m, "judge": "reward:r", "score": value})
            for (p, m), value in scores.items()
        ]
        take_scores(session, the(session).id or 0, "imported", rows)
    page = words(show(browser, "/answers", model="a", baseline="b"))
    assert "score 1.5 " in page and "score -0.25 " in page
    assert "all 2 won 1 tied 1" in page


def test_agreement_lists_thirty_pairs_and_says_how_many_more(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["a", "b"], 2))
    given.verdicts([row for n in range(9) for row in said("a", "b", [1, 0], f"llm:{n}")])
    page = show(browser, "/agreement")
    assert page.count('<td class="rate">') == 30
    assert "6 more pairs of judges have less in common" in words(page)


def test_models_without_a_score_stand_last_in_the_leaderboard(browser: TestClient, given: Bring) -> None:
    given.responses(answered(["a", "b", "c"], 4))
    given.verdicts([*said("a", "b", [1, 0, 1, 1]), *said("a", "c", [1, 1, 1, 1])])
    page = words(show(browser, "/leaderboard"))
    assert "Without a score: c (lost every game" in page
    assert re.search(r"\ba 1,\d+ .* b \d+ .* c no score", page)


# -- what the database is asked


def asked_of(database: Database, browser: TestClient, path: str) -> int:
    engine, statements = browser.app.state.database.engine, list[str]()  # type: ignore[attr-defined]

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert browser.get(path).status_code == 200
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(statements)


@pytest.mark.parametrize(
    "path", ["", "/answers?model=a&baseline=b", "/answers?judge=human&outcome=won", "/leaderboard", "/agreement"]
)
def test_as_many_queries_are_made_however_many_rows_there_are(
    browser: TestClient, given: Bring, database: Database, path: str
) -> None:
    def more(first: int, last: int) -> None:
        prompts = [f"p{n}" for n in range(first, last)]
        given.responses(
            [answer(prompt, model, prompt="Q?", category="c") for prompt in prompts for model in ("a", "b")]
        )
        rows = [verdict(prompt, "a", "b", n % 2, "human:x") for n, prompt in enumerate(prompts)]
        given.verdicts(rows + [verdict(prompt, "a", "b", n % 2, "llm:j") for n, prompt in enumerate(prompts)])

    more(0, 4)
    few = asked_of(database, browser, f"/experiments/1{path}")
    more(4, 60)
    assert asked_of(database, browser, f"/experiments/1{path}") == few


# -- where intervals are drawn


def test_an_intervals_place_on_its_line_by_hand() -> None:
    scale = rails.of_rates([0.62, 0.55, None, 0.69])
    assert (scale.low, scale.high) == (0.3, 0.7)
    assert scale.rail(0.6, 0.5, 0.65) == rails.Rail(75.0, 50.0, 37.5)
    assert scale.rail(0.6, None, None) == rails.Rail(75.0)
    assert (rails.of_rates([0.5]).low, rails.of_rates([0.5]).high) == (0.4, 0.6)
    assert (rails.of_rates([1.0]).low, rails.of_rates([0.0]).high) == (0.0, 1.0)
    assert (rails.of_rates([0.7]).low, rails.of_rates([0.3]).high) == (0.3, 0.7)  # not 0.2, for all that floats are
    assert rails.of_elo([1120.0, 990.0]) == rails.Scale(850.0, 1150.0)


def test_a_run_that_answers_leads_to_its_answers_and_one_that_judges_to_what_it_says(
    browser: TestClient, database: Database
) -> None:
    with database.write() as session:
        answering = run(session, "answers", parse_config({"stage": "respond", "model": "hf:me/tuned"}))
        judging = run(session, "rm", parse_config({"stage": "judge", "judge": "hf:me/rm", "responses": "run:answers"}))
        queued = run(session, "more", parse_config({"stage": "judge", "judge": "hf:me/rm"}), state=states.QUEUED)
        ids = [each.id for each in (answering, judging, queued)]
    pages = [html.unescape(browser.get(f"/runs/{each}").text) for each in ids]
    assert 'href="/experiments/1/answers?prompts=held_out&model=tuned"' in pages[0]
    assert 'href="/experiments/1?judge=reward%3Arm&prompts=held_out"' in pages[1]
    assert "answers?" not in pages[2] and 'href="/experiments/1"' in pages[2]


def test_how_far_a_run_is_counts_what_it_asks_and_not_steps(database: Database) -> None:
    with database.write() as session:
        judging = run(session, "rm", parse_config({"stage": "judge", "judge": "hf:me/rm"}), state=states.RUNNING)
        assert work_of(judging) == (0, None, "answers")
        judging.progress = {"task": "downloading model.safetensors", "done": 5e8, "total": 1e9, "unit": "bytes"}
        assert row(judging, "e")["fraction"] == 0
        judging.progress = {"task": "judging", "done": 30, "total": 120, "unit": "requests"}
        shown = row(judging, "e")
        tuning = Run(id=9, experiment_id=1, name="t", stage="sft", config={}, created_at=0, state="running", step=3)
        tuning.total_steps = 12
        assert work_of(tuning) == (3, 12, "steps")
    assert (shown["step"], shown["total_steps"], shown["unit"], shown["fraction"]) == (30, 120, "requests", 0.25)
