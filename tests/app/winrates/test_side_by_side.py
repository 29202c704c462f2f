"""Answers side by side count as the tables do, on either database."""

from __future__ import annotations

import random

from app.winrates import tables
from app.winrates.choices import Asked
from app.winrates.intake import take_scores
from app.winrates.reading import read
from app.winrates.result import result
from app.winrates.rows import as_score
from app.winrates.side_by_side import Wanted, read_page
from tests.app.winrates.made import Bring, Row, answer, the, verdict

MODELS = ("base", "a", "b")
PROMPTS = [f"p{n}" for n in range(30)]


def bring_opinions(bring: Bring) -> None:
    """Answers of three models, some empty; several people's votes, swapped ones too; a judge that scores."""
    draw = random.Random(0)
    bring.responses([answer(p, m, draw.choice(["", "Yes.", "No."]), prompt="Q?") for p in PROMPTS for m in MODELS])
    votes: list[Row] = []
    for prompt in PROMPTS:
        for _ in range(draw.randrange(4)):
            first, second = draw.sample(MODELS, 2)
            votes.append(
                verdict(prompt, first, second, draw.choice([0, 0.1, 0.5, 0.9, 1]), f"human:{draw.randrange(3)}")
            )
    bring.verdicts(votes)
    with bring.database.write() as session:
        scores = [
            {"prompt_id": p, "model": m, "judge": "reward:r", "score": draw.randrange(4)}
            for p in PROMPTS
            for m in MODELS
        ]
        take_scores(session, the(session).id or 0, "imported", [as_score(row) for row in scores[5:]])


def test_filters_let_through_as_many_prompts_as_the_table_counts(bring: Bring) -> None:
    bring_opinions(bring)
    with bring.database.read() as session:
        for judge in ("human", "human:1", "reward:r"):
            for row in tables.winrate(session, the(session), judge, "base").rows:
                found = read_page(session, the(session), Wanted("imported", row["model"], "base", judge))
                counts = [found.counts.get(name, 0) for name in ("won", "lost", "tied")]
                assert counts == [row["wins"], row["losses"], row["ties"]], (judge, row["model"])
                assert found.total == len(PROMPTS)
                for outcome in ("won", "lost", "tied", "empty", "unjudged"):
                    wanted = Wanted("imported", row["model"], "base", judge, outcome)
                    assert read_page(session, the(session), wanted).total == found.counts.get(outcome, 0)


def test_a_verdict_is_turned_to_the_model_that_stands_first(bring: Bring) -> None:
    bring.responses([answer("p0", "a", "left"), answer("p0", "b", "right")])
    bring.verdicts([verdict("p0", "b", "a", 0.75, score_a=3.0, score_b=1.0, reason="why")])
    with bring.database.read() as session:
        (row,) = read_page(session, the(session), Wanted("imported", "a", "b", "llm:j")).rows
        (turned,) = read_page(session, the(session), Wanted("imported", "b", "a", "llm:j")).rows
    assert row.answer and row.baseline
    assert (row.answer.text.text, row.baseline.text.text, row.preference, row.outcome) == (
        "left",
        "right",
        0.25,
        "lost",
    )
    (opinion,) = row.opinions
    assert (opinion.preference, opinion.score, opinion.baseline_score, opinion.reason) == (0.25, 1.0, 3.0, "why")
    assert (turned.preference, turned.opinions[0].score) == (0.75, 3.0)


def test_the_whole_result_is_read_from_either_database(bring: Bring) -> None:
    bring_opinions(bring)
    with bring.database.read() as session:
        shown = result(session, the(session), Asked(judge="human", baseline="base"))
        page = read(session, the(session), Asked(judge="human", baseline="base"), "a", "", "", 1)
    assert shown.table is not None and {row["model"] for row in shown.rows} == {"a", "b"}
    assert page is not None and len(page.page.rows) == 20 and page.page.pages == 2
