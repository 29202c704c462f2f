"""What is there of an experiment's prompts and answers, and how rows are written: for intake.py.

Functions that write take a write session that holds the lock (app.db.one_at_a_time).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar, cast

from sqlalchemy import Table, bindparam, insert, update
from sqlmodel import Session, select

from app.models import Prompt, Response, Score, Verdict
from app.winrates.rows import ResponseRow
from training.data.examples import Message
from training.data.lines import RowProblem

T = TypeVar("T")
Numbered = Sequence[tuple[int, T]]  # rows with the line that each stands in
Place = tuple[int, str]  # an answer's: its prompt's key and its model
NOTHING: dict[str, Any] = {"messages": None, "category": None, "reference": None}  # what is known of a prompt at least
AT_ONCE = 500  # values of one statement: SQLite takes 32,766
ROWS_AT_ONCE = 10_000  # that are written by one call: a million as one list would take a gigabyte

PROMPTS, RESPONSES = cast(Table, Prompt.__table__), cast(Table, Response.__table__)  # type: ignore[attr-defined]
SCORES, VERDICTS = cast(Table, Score.__table__), cast(Table, Verdict.__table__)  # type: ignore[attr-defined]


class RowProblems(Exception):
    """Rows that do not fit what is there, by line."""

    def __init__(self, problems: list[RowProblem]) -> None:
        super().__init__("; ".join(problem.sentence for problem in problems))
        self.problems = problems


def prompt_keys(session: Session, experiment_id: int, set_name: str, rows: Numbered[ResponseRow]) -> dict[str, int]:
    """The key of each prompt that these rows answer, made known where it was not. Raises RowProblems.

    What rows say of a prompt (messages, category, reference) is kept where nothing was known of it before.
    """
    known = _known_rows(session, experiment_id, set_name)
    problems: list[RowProblem] = []
    wanted: dict[str, ResponseRow] = {}
    for line, row in rows:
        there = wanted.get(row.prompt_id)
        before = (there.messages if there else None) or known.get(row.prompt_id, NOTHING)["messages"]
        if before is not None and row.messages is not None and before != row.messages:
            sentence = f"The prompt “{row.prompt_id[:60]}” is another one than before under this id."
            problems.append(RowProblem(line, sentence, "Each prompt has an id of its own."))
        if there is None or any(getattr(there, name) is None and getattr(row, name) is not None for name in NOTHING):
            wanted[row.prompt_id] = row if there is None else replace(there, **_filled(_about(there), row))
    if problems:
        raise RowProblems(problems)
    made = make_known(session, experiment_id, set_name, dict(wanted))
    more = [
        {"key": made[prompt_id][0], **filled}
        for prompt_id, about in known.items()
        if prompt_id in wanted and (filled := _filled(about, wanted[prompt_id])) != about
    ]
    if more:
        session.connection().execute(update(PROMPTS).where(PROMPTS.c.id == bindparam("key")), more)
    return {prompt_id: key for prompt_id, (key, _) in made.items()}


def _known_rows(session: Session, experiment_id: int, set_name: str) -> dict[str, dict[str, Any]]:
    """What is known of each prompt of the set, by its id, as `_about` has it."""
    columns = (PROMPTS.c.prompt_id, *(PROMPTS.c[name] for name in NOTHING))
    statement = select(*columns).where(PROMPTS.c.experiment_id == experiment_id, PROMPTS.c.set_name == set_name)
    return {prompt_id: dict(zip(NOTHING, about, strict=True)) for prompt_id, *about in session.execute(statement)}


def _filled(about: Mapping[str, Any], row: ResponseRow) -> dict[str, Any]:
    """What is known of a prompt, and where nothing is, what a row says."""
    return {name: getattr(row, name) if value is None else value for name, value in about.items()}


def _about(row: ResponseRow | None) -> dict[str, Any]:
    return dict(NOTHING) if row is None else {name: getattr(row, name) for name in NOTHING}


def make_known(
    session: Session, experiment_id: int, set_name: str, wanted: dict[str, ResponseRow | None]
) -> dict[str, tuple[int, list[Message] | None]]:
    """All prompts of the set, with those wanted, by their ids; `wanted` has an answer's row where it says what is asked."""
    known = known_prompts(session, experiment_id, set_name)
    place = {"experiment_id": experiment_id, "set_name": set_name}
    new = [{**place, "prompt_id": key, **_about(row)} for key, row in wanted.items() if key not in known]
    insert_all(session, PROMPTS, new)
    return known_prompts(session, experiment_id, set_name) if new else known


def known_prompts(session: Session, experiment_id: int, set_name: str) -> dict[str, tuple[int, list[Message] | None]]:
    """Key and messages of each prompt of the set, by its id."""
    statement = select(Prompt.prompt_id, Prompt.id, Prompt.messages)
    statement = statement.where(Prompt.experiment_id == experiment_id, Prompt.set_name == set_name)
    return {prompt_id: (key, messages) for prompt_id, key, messages in session.exec(statement)}  # type: ignore[misc]


def answers_of(session: Session, experiment_id: int, set_name: str) -> dict[Place, tuple[int, str]]:
    """Key and text of each answer to the set's prompts."""
    answer = RESPONSES.c
    statement = select(answer.prompt_key, answer.model, answer.id, answer.text).join(
        PROMPTS, PROMPTS.c.id == answer.prompt_key
    )
    statement = statement.where(PROMPTS.c.experiment_id == experiment_id, PROMPTS.c.set_name == set_name)
    return {(prompt, model): (key, text) for prompt, model, key, text in session.execute(statement)}


def answer_keys(session: Session, experiment_id: int, set_name: str) -> dict[Place, int]:
    """Key of each answer to the set's prompts."""
    answer = RESPONSES.c
    statement = select(answer.prompt_key, answer.model, answer.id).join(PROMPTS, PROMPTS.c.id == answer.prompt_key)
    statement = statement.where(PROMPTS.c.experiment_id == experiment_id, PROMPTS.c.set_name == set_name)
    return {(prompt, model): key for prompt, model, key in session.execute(statement)}


def insert_all(session: Session, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows, however many."""
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_ONCE)):
        session.connection().execute(insert(table), some)


def some_of(keys: list[int]) -> Iterator[list[int]]:
    """Keys in lists that one statement takes."""
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
