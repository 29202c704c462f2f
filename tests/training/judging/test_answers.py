from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.judging.given import given, question
from training.errors import DataError
from training.judging.answers import judged_twice, read_answers


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(prompt_id: Any = "p1", model: str = "m1", response: str = "yes", **more: Any) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "model": model, "response": response, **more}


def test_rows_are_answers_by_prompt_and_model_in_the_order_of_the_file(tmp_path: Path) -> None:
    answers = read_answers(write(
        tmp_path / "a.jsonl", row("p2", "b", "one", prompt="Q2"), row("p1", "a", " two\n", reference="5"),
        row("p2", "a", "", prompt="Q2"), row("p1", "b", "\0 שלום"), row(7, "a"),
    ))  # fmt: skip
    assert answers.models == ["b", "a"]
    assert [(each.prompt_id, model) for each, model in answers.each()] == [
        ("p2", "b"), ("p2", "a"), ("p1", "b"), ("p1", "a"), ("7", "a"),
    ]  # fmt: skip
    first, second, _ = answers.questions
    assert first.messages == [{"role": "user", "content": "Q2"}] and first.answers == {"b": "one", "a": ""}
    assert (second.reference, second.answers["b"]) == ("5", "\0 שלום")
    with pytest.raises(DataError, match="“p1” do not say what was asked"):
        answers.asked(second)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"prompt_id": "p", "model": "m"}, "Line 2 of a.jsonl: “response” is missing"),
        (row(response=3), "“response” is no text"),  # type: ignore[arg-type]
        (row(), "“m1” has an answer to the prompt “p1” already"),
        (row("p2", prompt=[{"role": "user"}]), "Line 2"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(bad: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        read_answers(write(tmp_path / "a.jsonl", row(), bad))


def test_the_share_that_is_judged_twice_comes_from_the_seed() -> None:
    answers = given(*(question(f"p{index}", {"m": "x"}) for index in range(200)))
    chosen = judged_twice(answers, 0.1, 3)
    assert len(chosen) == 20 and chosen == judged_twice(answers, 0.1, 3) != judged_twice(answers, 0.1, 4)
    assert judged_twice(answers, 0.0, 3) == frozenset()
    assert len(judged_twice(answers, 0.001, 3)) == 1, "whoever asks for noise gets some"
    assert len(judged_twice(answers, 1.0, 3)) == 200
