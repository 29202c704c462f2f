"""Answers, scores and verdicts into the database: of a run when it finishes, or of a file. All of them or none.

Each function takes a write session. What a run made replaces what an earlier run said of the same; what somebody
imports never changes what is there: then it raises RowProblems, each with its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Table, and_, delete, exists, insert, or_, update
from sqlmodel import Session, col, select

from app.models import Prompt, Response, Score, Verdict
from app.winrates.rows import ResponseRow, ScoreRow, VerdictRow
from training.data.examples import Message
from training.data.lines import RowProblem

T = TypeVar("T")
Numbered = Sequence[tuple[int, T]]  # rows with the line that each stands in
AT_ONCE = 500  # rows of one statement's parameters: SQLite takes 32,766 values

PROMPTS, RESPONSES = cast(Table, Prompt.__table__), cast(Table, Response.__table__)  # type: ignore[attr-defined]
SCORES, VERDICTS = cast(Table, Score.__table__), cast(Table, Verdict.__table__)  # type: ignore[attr-defined]


class RowProblems(Exception):
    """Rows that do not fit what is there, by line."""

    def __init__(self, problems: list[RowProblem]) -> None:
        super().__init__("; ".join(problem.sentence for problem in problems))
        self.problems = problems


def take_responses(
    session: Session, experiment_id: int, set_name: str, rows: Numbered[ResponseRow], run_id: int | None = None
) -> int:
    """Keep answers, and the prompts that they answer. Returns how many are new. Raises RowProblems."""
    keys = _prompt_keys(session, experiment_id, set_name, rows)
    known = _answers(session, experiment_id, set_name)
    problems, new, changed = [], [], []
    seen: dict[tuple[int, str], str] = {}
    for line, row in rows:
        place = keys[row.prompt_id], row.model
        if place in seen:
            problems.append(_twice(line, row, "in this file"))
        elif place in known and known[place][1] != row.text:
            if run_id is None:
                problems.append(_twice(line, row, "in this experiment, another one"))
            else:
                changed.append((known[place][0], row))
        elif place not in known:
            new.append(_response(row, place[0], run_id))
        seen[place] = row.text
    if problems:
        raise RowProblems(problems)
    _replace(session, changed, run_id)
    _insert(session, RESPONSES, new)
    return len(new)


def _twice(line: int, row: ResponseRow, where: str) -> RowProblem:
    sentence = f"“{row.model[:60]}” has an answer to the prompt “{row.prompt_id[:60]}” already, {where}."
    return RowProblem(line, sentence, "Each model answers a prompt once: leave one out, or name the model otherwise.")


def _response(row: ResponseRow, prompt_key: int, run_id: int | None) -> dict[str, Any]:
    return {"prompt_key": prompt_key, "model": row.model, **_content(row, run_id)}


def _content(row: ResponseRow, run_id: int | None) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "text": row.text,
        "characters": len(row.text),
        "empty": not row.text.strip(),
        "ended": row.ended,
        "tokens": row.tokens,
        "checkpoint": row.checkpoint,
    }


def _replace(session: Session, changed: list[tuple[int, ResponseRow]], run_id: int | None) -> None:
    """Another answer takes an answer's place, and what judges said of the old one goes."""
    for key, row in changed:
        old = session.get_one(Response, key)
        session.execute(delete(SCORES).where(SCORES.c.response_id == key))
        of_it = or_(VERDICTS.c.model_a == old.model, VERDICTS.c.model_b == old.model)
        session.execute(delete(VERDICTS).where(VERDICTS.c.prompt_key == old.prompt_key, of_it))
        session.execute(update(RESPONSES).where(RESPONSES.c.id == key).values(**_content(row, run_id)))


def forget_answers(session: Session, run_ids: Sequence[int]) -> None:
    """Take away what these runs answered, and all that anybody said of it."""
    of_runs = RESPONSES.c.run_id.in_(run_ids)
    mine = RESPONSES.c.prompt_key == VERDICTS.c.prompt_key
    named = or_(RESPONSES.c.model == VERDICTS.c.model_a, RESPONSES.c.model == VERDICTS.c.model_b)
    session.execute(delete(VERDICTS).where(exists().where(of_runs, mine, named)))
    session.execute(delete(RESPONSES).where(of_runs))  # their scores go with them


def take_scores(
    session: Session, experiment_id: int, set_name: str, rows: Iterable[ScoreRow], run_id: int | None = None
) -> int:
    """Keep what a judge gave each answer; the later score of one judge counts. Raises KeyError for an unknown answer."""
    prompts = _known_prompts(session, experiment_id, set_name)
    answers = _answers(session, experiment_id, set_name)
    made = {(answers[prompts[row.prompt_id][0], row.model][0], row.judge): row.score for row in rows}
    for judge in {judge for _, judge in made}:
        mine = [key for key, each in made if each == judge]
        for some in _some(mine):
            session.execute(delete(SCORES).where(SCORES.c.judge == judge, SCORES.c.response_id.in_(some)))
    _insert(
        session,
        SCORES,
        [
            {"response_id": key, "judge": judge, "score": score, "run_id": run_id}
            for (key, judge), score in made.items()
        ],
    )
    return len(made)


def take_verdicts(
    session: Session,
    experiment_id: int,
    set_name: str,
    rows: Numbered[VerdictRow],
    run_id: int | None = None,
    source: str | None = None,
) -> int:
    """Keep verdicts. Prompts that nobody knows are made known, unless there are answers. Raises RowProblems."""
    answers = _answers(session, experiment_id, set_name)
    prompts = _known_prompts(session, experiment_id, set_name)
    if answers:
        problems = list(_unanswered(rows, prompts, answers))
        if problems:
            raise RowProblems(problems)
    else:
        prompts = _make_known(session, experiment_id, set_name, {row.prompt_id: None for _, row in rows})
    if run_id is not None:
        _forget(session, rows, prompts)
    _insert(session, VERDICTS, [_verdict(row, prompts[row.prompt_id][0], run_id, source) for _, row in rows])
    return len(rows)


def _unanswered(
    rows: Numbered[VerdictRow], prompts: dict[str, tuple[int, Any]], answers: dict[tuple[int, str], tuple[int, str]]
) -> Iterable[RowProblem]:
    """Verdicts on answers that are not there, where the experiment has answers."""
    models = {model for _, model in answers}
    hint = "Import the answers first, or correct the name."
    for line, row in rows:
        known = prompts.get(row.prompt_id)
        for model in (row.model_a, row.model_b):
            if model not in models:
                yield RowProblem(line, f"“{model[:60]}” has no answers in this experiment.", hint)
            elif known is None:
                yield RowProblem(line, f"There is no prompt “{row.prompt_id[:60]}” in this experiment.", hint)
                break
            elif (known[0], model) not in answers:
                yield RowProblem(line, f"“{model[:60]}” has no answer to the prompt “{row.prompt_id[:60]}”.", hint)


def _forget(session: Session, rows: Numbered[VerdictRow], prompts: dict[str, tuple[int, Any]]) -> None:
    """Take away what an earlier run of the same judge said of the same answers."""
    of_runs = VERDICTS.c.run_id.is_not(None)
    by_pair: dict[tuple[str, str, str], set[int]] = {}
    for _, row in rows:
        a, b = sorted((row.model_a, row.model_b))
        by_pair.setdefault((a, b, row.judge), set()).add(prompts[row.prompt_id][0])
    for (a, b, judge), keys in by_pair.items():
        either = or_(
            and_(VERDICTS.c.model_a == a, VERDICTS.c.model_b == b),
            and_(VERDICTS.c.model_a == b, VERDICTS.c.model_b == a),
        )
        for some in _some(sorted(keys)):
            session.execute(
                delete(VERDICTS).where(of_runs, either, VERDICTS.c.judge == judge, VERDICTS.c.prompt_key.in_(some))
            )


def _verdict(row: VerdictRow, prompt_key: int, run_id: int | None, source: str | None) -> dict[str, Any]:
    return {
        "prompt_key": prompt_key,
        "model_a": row.model_a,
        "model_b": row.model_b,
        "judge": row.judge,
        "preference": row.preference,
        "score_a": row.score_a,
        "score_b": row.score_b,
        "reason": row.reason,
        "run_id": run_id,
        "source": source,
    }


# -- prompts -------------------------------------------------------------------------------------------------------


def _prompt_keys(session: Session, experiment_id: int, set_name: str, rows: Numbered[ResponseRow]) -> dict[str, int]:
    """The key of each prompt that these rows answer, made known where it was not. Raises RowProblems."""
    known = _known_prompts(session, experiment_id, set_name)
    problems: list[RowProblem] = []
    wanted: dict[str, ResponseRow] = {}
    for line, row in rows:
        there = wanted.get(row.prompt_id)
        before = there.messages if there else known.get(row.prompt_id, (0, None))[1]
        if before is not None and row.messages is not None and before != row.messages:
            sentence = f"The prompt “{row.prompt_id[:60]}” is another one than before under this id."
            problems.append(RowProblem(line, sentence, "Each prompt has an id of its own."))
        if there is None or (there.messages is None and row.messages is not None):
            wanted[row.prompt_id] = row
    if problems:
        raise RowProblems(problems)
    made = _make_known(session, experiment_id, set_name, dict(wanted))
    for prompt_id, row in wanted.items():
        if row.messages is not None and made[prompt_id][1] is None:  # known by its id alone until now
            session.execute(update(PROMPTS).where(PROMPTS.c.id == made[prompt_id][0]).values(**_about(row)))
    return {prompt_id: key for prompt_id, (key, _) in made.items()}


def _about(row: ResponseRow | None) -> dict[str, Any]:
    if row is None:
        return {"messages": None, "category": None, "reference": None}
    return {"messages": row.messages, "category": row.category, "reference": row.reference}


def _make_known(
    session: Session, experiment_id: int, set_name: str, wanted: dict[str, ResponseRow | None]
) -> dict[str, tuple[int, list[Message] | None]]:
    known = _known_prompts(session, experiment_id, set_name)
    place = {"experiment_id": experiment_id, "set_name": set_name}
    new = [{**place, "prompt_id": key, **_about(row)} for key, row in wanted.items() if key not in known]
    _insert(session, PROMPTS, new)
    return _known_prompts(session, experiment_id, set_name) if new else known


def _known_prompts(session: Session, experiment_id: int, set_name: str) -> dict[str, tuple[int, list[Message] | None]]:
    """Key and messages of each prompt of the set, by its id."""
    statement = select(Prompt.prompt_id, Prompt.id, Prompt.messages)
    statement = statement.where(Prompt.experiment_id == experiment_id, Prompt.set_name == set_name)
    return {prompt_id: (key, messages) for prompt_id, key, messages in session.exec(statement)}  # type: ignore[misc]


def _answers(session: Session, experiment_id: int, set_name: str) -> dict[tuple[int, str], tuple[int, str]]:
    """Key and text of each answer to the set's prompts, by prompt and model."""
    statement = select(Response.prompt_key, Response.model, Response.id, Response.text).join(
        Prompt, col(Prompt.id) == col(Response.prompt_key)
    )
    statement = statement.where(Prompt.experiment_id == experiment_id, Prompt.set_name == set_name)
    return {(prompt, model): (key, text) for prompt, model, key, text in session.exec(statement)}  # type: ignore[misc]


def _insert(session: Session, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        session.connection().execute(insert(table), rows)


def _some(keys: list[int]) -> Iterator[list[int]]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
