"""`preflab winrate`, `leaderboard`, `agreement`, and answers and verdicts in and out by command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.models import Experiment, Prompt, Response, Score, Verdict
from app.winrates import tables
from app.winrates.intake import take_scores
from app.winrates.rows import ScoreRow
from tests.app.command import preflab
from tests.app.winrates.made import answer, answered, count, lines, said, the, verdict

MODELS = ("instruct", "sft", "dpo")


@pytest.fixture
def here(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return database


@pytest.fixture
def arena(here):
    """An experiment of three models, 40 prompts, one judge and one person."""
    rows = [
        answer(f"p{n}", model, "x" * (20 + k + n * (k + 2) % 7), prompt="Why?", ended=(n + k) % 20 != 0)
        for n in range(40)
        for k, model in enumerate(MODELS)
    ]
    Path("answers.jsonl").write_bytes(lines(rows))
    votes = [*said("sft", "instruct", [1, 0, 0.5, 0] * 10), *said("dpo", "instruct", [1, 1, 0, 0.5] * 10)]
    votes += said("dpo", "instruct", [1, 1, 1, 0] * 2, "human:anna")
    Path("verdicts.jsonl").write_bytes(lines(votes))
    assert preflab("import", "responses", "answers.jsonl", "--experiment", "arena").code == 0
    assert preflab("import", "verdicts", "verdicts.jsonl", "--experiment", "arena").code == 0
    return here


ASKED = ("arena", "--judge", "j", "--baseline", "instruct")


def test_json_is_the_table_with_numbers_and_nothing_of_the_pages(arena):
    done = preflab("winrate", *ASKED, "--json")
    with arena.read() as session:
        found = tables.winrate(session, the(session, "arena"), "llm:j", "instruct")
    assert done.json["rows"] == found.rows and done.json["comparisons"] == found.comparisons
    assert list(done.json) == [
        "experiment", "prompts", "judge", "baseline", "rows", "comparisons", "findings", "warnings", "noise",
    ]  # fmt: skip
    assert done.err == ""


def test_a_table_for_people_comes_first_then_findings_then_warnings(arena):
    done = preflab("winrate", *ASKED)
    paragraphs = done.out.rstrip("\n").split("\n\n")
    table = [line.split() for line in paragraphs[0].splitlines()]
    assert table[0] == ["model", "win", "%", "95", "%", "interval", "n", "W/L/T", "LC", "%", "empty", "%", "ended", "%",
                        "length"]  # fmt: skip
    dpo = done_row(preflab("winrate", *ASKED, "--json").json, "dpo")
    assert table[1] == [
        "dpo",
        f"{100 * dpo['win_rate']:.1f}",
        f"{100 * dpo['ci_low']:.1f}",
        "to",
        f"{100 * dpo['ci_high']:.1f}",
        "40",
        "20/10/10",
        f"{100 * dpo['length_controlled_win_rate']:.1f}",
        "0.0",
        f"{100 * dpo['ended_rate']:.1f}",
        f"{dpo['mean_length']:.0f}",
    ]
    assert paragraphs[1].startswith("arena: against instruct, by llm:j, on the prompt set “imported”.")
    assert paragraphs[2].startswith("dpo beats sft by ")
    assert len(paragraphs) == 3  # nothing to be warned of
    warned = preflab("winrate", "arena", "--judge", "human").out.rstrip("\n").split("\n\n")[-1]
    assert warned.splitlines() == [
        "warning: 12 % of the answers of instruct never ended: they were cut, and judged as they were.",
        "warning: 8 prompts are little to go by: the intervals themselves are rough.",
    ]


def done_row(content, model):
    return next(row for row in content["rows"] if row["model"] == model)


def test_what_is_not_known_is_a_dash(here):
    Path("v.jsonl").write_bytes(lines(said("b", "a", [1])))
    preflab("import", "verdicts", "v.jsonl", "--experiment", "e")
    row = preflab("winrate", "e").out.splitlines()[1].split()
    assert row == ["b", "100.0", "20.7", "to", "100.0", "1", "1/0/0", "-", "-", "-", "-"]
    assert preflab("leaderboard", "e").out.splitlines()[1].split() == ["a", "-", "-", "-", "1"]


def test_a_table_in_a_pipe_is_neither_cut_nor_broken(here):
    names = ["x" * 150, "y" * 150]
    Path("v.jsonl").write_bytes(lines([verdict("p", *names, 1)]))
    preflab("import", "verdicts", "v.jsonl", "--experiment", "e")
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "winrate", "e"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "COLUMNS": "80"},
        check=True,
    )
    assert done.stdout.splitlines()[1].startswith("y" * 150 + "  ")


def test_a_ranking_for_people(arena):
    done = preflab("leaderboard", "arena", "--judge", "llm:j")
    head, *rows = [line.split() for line in done.out.split("\n\n")[0].splitlines()]
    assert head[:2] == ["model", "Elo"]
    found = preflab("leaderboard", "arena", "--judge", "llm:j", "--json").json
    assert [row[0] for row in rows] == [row["model"] for row in found["rows"]] == ["dpo", "instruct", "sft"]
    assert rows[0][1] == f"{found['rows'][0]['elo']:,.0f}" and rows[1][-1] == "80"
    assert list(found) == ["experiment", "prompts", "judge", "rows", "connected", "warnings"]


def test_of_many_judges_the_thirty_pairs_that_share_most_are_shown(here):
    votes = [row for n in range(9) for row in said("a", "b", [1, 0] * (n + 1), f"llm:j{n}")]
    Path("v.jsonl").write_bytes(lines(votes))
    preflab("import", "verdicts", "v.jsonl", "--experiment", "e")
    done, found = preflab("agreement", "e"), preflab("agreement", "e", "--json").json
    table, more, rest = done.out.split("\n\n")
    assert len(found["rows"]) == 36 and len(table.splitlines()) == 31
    assert more == "6 more pairs of judges, which share fewer: `--json` has all."
    shown = [int(line.split()[2]) for line in table.splitlines()[1:]]
    assert shown == sorted((row["n"] for row in found["rows"]), reverse=True)[:30]
    assert "Krippendorff's alpha over all judges: 1.000" in rest
    assert list(found) == ["experiment", "prompts", "rows", "krippendorff_alpha"]


def test_an_experiment_is_named_or_numbered(arena):
    assert preflab("winrate", "1", *ASKED[1:]).out == preflab("winrate", *ASKED).out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["winrate", "nothing"], "There is no experiment “nothing”."),
        (["leaderboard", "77"], "There is no experiment “77”."),
        (["agreement", "99999999999999999999"], "There is no experiment “99999999999999999999”."),
        (["winrate", "arena"], "“arena” has several judges: human, llm:j. Say which by --judge."),
        (["winrate", "arena", "--judge", "llm:j"], "names no baseline, and has 3 models: dpo, instruct, sft."),
        (["winrate", *ASKED[:3], "--baseline", "gpt"], "There is no model “gpt” here."),
        (["winrate", *ASKED, "--prompts", "x"], "There is no prompt set “x” here. --prompts takes one of: imported."),
        (["leaderboard", "arena", "--judge", "me"], "There is no judge “me” here. There are: human, llm:j."),
        (["import", "responses", "none.jsonl", "--experiment", "e"], "There is no file none.jsonl."),
        (["import", "verdicts", ".", "--experiment", "e"], "no plain file"),
        (["import", "verdicts", "verdicts.jsonl", "--experiment", "../x"], "An experiment's name"),
        (["import", "verdicts", "verdicts.jsonl", "--experiment", "arena"], "are in “arena” already; twice, they"),
        (["import", "verdicts", "answers.jsonl", "--experiment", "e"], "Line 1 of answers.jsonl: “preference” is missing"),
        (["import", "responses", "verdicts.jsonl", "--experiment", "e"], "Line 1 of verdicts.jsonl: “response” is missing"),
        (["import", "dataset", "answers.jsonl", "--name", "x", "--labelled-by", "me"], "“labelled_by” is “me”."),
        (["export", "alpaca-eval", "arena", "gpt"], "There is no model “gpt” here. MODEL takes one of: dpo, instruct, sft."),
        (["export", "verdicts", "nothing"], "There is no experiment “nothing”."),
        (["export", "verdicts", "arena", "--out", "no/such/folder.jsonl"], "cannot be written"),
        (["export", "verdicts", "arena", "--out", "v", "--json"], "give one of them"),
    ],
)  # fmt: skip
def test_wrong_input_ends_with_2_and_a_sentence(arguments, sentence, arena):
    done = preflab(*arguments)
    assert done.code == 2, done
    assert sentence in done.err.replace("\n", " ")
    assert "Traceback" not in done.err and done.out == ""
    assert count(arena, Experiment, Prompt, Response, Verdict) == [1, 40, 120, 88]


def test_an_import_says_what_came_in_and_notes_on_stderr(here):
    Path("a.jsonl").write_bytes(lines([*answered(["a", "b"], 2), answer("q", "a")]))
    done = preflab("import", "responses", "a.jsonl", "--experiment", "e", "--prompts", "mine")
    assert done.out == "5 answers of 2 models, 3 prompts: in the prompt set “mine” of e.\n"
    note = "1 prompt was answered by one model only, so nothing is compared there: “q” (line 5)."
    assert done.err == note + "\n"
    again = preflab("import", "responses", "a.jsonl", "--experiment", "e", "--json")
    assert again.json == {
        "imported": 5,
        "experiment": {"id": 1, "name": "e"},
        "prompts": "mine",
        "prompt_count": 3,
        "models": 2,
        "notes": ["5 answers were there already, the same.", note],
    }
    assert again.err.splitlines() == again.json["notes"]
    Path("v.jsonl").write_bytes(lines(said("a", "b", [1, 0])))
    votes = preflab("import", "verdicts", "v.jsonl", "--experiment", "e")
    assert (votes.out, votes.err) == (
        "2 verdicts of 1 judge on 2 models, 2 prompts: in the prompt set “mine” of e.\n", "",
    )  # fmt: skip


def test_what_is_exported_is_what_import_takes(arena):
    for what in ("responses", "verdicts"):
        assert preflab("export", what, "arena", "--out", f"{what}.out").code == 0
        assert preflab("import", what, f"{what}.out", "--experiment", "copy").code == 0
        copy = preflab("export", what, "copy").out
        assert copy == Path(f"{what}.out").read_text()
        whole = preflab("export", what, "copy", "--json").json
        assert whole["rows"] == [json.loads(line) for line in copy.splitlines()]
    assert (
        preflab("winrate", "copy", *ASKED[1:], "--json").json["rows"]
        == preflab("winrate", *ASKED, "--json").json["rows"]
    )


def test_scores_are_exported(arena):
    with arena.write() as session:
        rows = [ScoreRow("p1", "sft", "reward:rm", -0.5), ScoreRow("p0", "dpo", "checker", 1.0)]
        take_scores(session, the(session, "arena").id, "imported", rows)
    assert [json.loads(line) for line in preflab("export", "scores", "arena").out.splitlines()] == [
        {"prompt_id": "p0", "model": "dpo", "judge": "checker", "score": 1.0},
        {"prompt_id": "p1", "model": "sft", "judge": "reward:rm", "score": -0.5},
    ]
    assert count(arena, Score) == [2]


def test_alpaca_evals_outputs_are_one_array_of_its_four_keys(here):
    rows = [
        answer("p0", "m", "So.", prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]),
        answer("p1", "m", "<b>", prompt="What?", category="odd"),
        answer("p0", "o", "No."),
    ]  # fmt: skip
    Path("a.jsonl").write_bytes(lines(rows))
    preflab("import", "responses", "a.jsonl", "--experiment", "e")
    expected = [
        {"instruction": "Be brief.\n\nWhy?", "output": "So.", "generator": "m", "dataset": "imported"},
        {"instruction": "What?", "output": "<b>", "generator": "m", "dataset": "odd"},
    ]
    assert preflab("export", "alpaca-eval", "e", "m").json == expected
    done = preflab("export", "alpaca-eval", "e", "m", "--out", "m.json")
    assert done.out == "" and "bytes written to m.json" in done.err
    assert json.loads(Path("m.json").read_text()) == expected


def test_alpaca_evals_form_needs_what_was_asked(here):
    Path("a.jsonl").write_bytes(lines([answer("p0", "m", prompt="Why?"), answer("p1", "m")]))
    preflab("import", "responses", "a.jsonl", "--experiment", "e")
    done = preflab("export", "alpaca-eval", "e", "m", "--out", "m.json")
    assert done.code == 2 and "known by their ids alone" in done.err
    assert not Path("m.json").exists()
