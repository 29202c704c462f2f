"""Answers, scores and verdicts into the database: of a run when it finishes, or of a file. All of them or none.

Each function takes a write session. What a run made replaces what an earlier run said of the same; what somebody
imports never changes what is there: then it raises RowProblems, each with its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, delete, exists, or_, select, update
from sqlmodel import Session

from app.db import one_at_a_time
from app.winrates.known import (
    RESPONSES,
    SCORES,
    VERDICTS,
    Numbered,
    Place,
    RowProblems,
    answer_keys,
    answers_of,
    insert_all,
    known_prompts,
    make_known,
    prompt_keys,
    some_of,
)
from app.winrates.rows import ResponseRow, ScoreRow, VerdictRow
from training.data.lines import RowProblem

ANSWERS = "answers"  # what only one transaction at a time takes in: two would make the same prompts known


def take_responses(
    session: Session, experiment_id: int, set_name: str, rows: Numbered[ResponseRow], run_id: int | None = None
) -> int:
    """Keep answers, and the prompts that they answer. Returns how many are new. Raises RowProblems."""
    one_at_a_time(session, ANSWERS)
    keys = prompt_keys(session, experiment_id, set_name, rows)
    known = answers_of(session, experiment_id, set_name)
    problems, new, again = [], [], []
    seen: set[Place] = set()
    for line, row in rows:
        place = keys[row.prompt_id], row.model
        if place in seen:
            problems.append(_twice(line, row, "in this file"))
        elif place not in known:
            new.append(_response(row, place[0], run_id))
        elif run_id is not None:
            again.append((place, row))
        elif known[place][1] != row.text:
            problems.append(_twice(line, row, "in this experiment, another one"))
        seen.add(place)
    if problems:
        raise RowProblems(problems)
    if run_id is not None:
        _replace(session, known, again, run_id)
        _forget_what_it_answered_before(session, known, seen, run_id)
    insert_all(session, RESPONSES, new)
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


def _replace(
    session: Session, known: dict[Place, tuple[int, str]], again: list[tuple[Place, ResponseRow]], run_id: int
) -> None:
    """A run's answer takes an older one's place; where it is another text, what judges said of the old one goes."""
    _forget_said(session, {place: known[place][0] for place, row in again if row.text != known[place][1]})
    made = [{"key": known[place][0], **_content(row, run_id)} for place, row in again]
    if made:
        session.connection().execute(update(RESPONSES).where(RESPONSES.c.id == bindparam("key")), made)


def _forget_what_it_answered_before(
    session: Session, known: dict[Place, tuple[int, str]], seen: set[Place], run_id: int
) -> None:
    """An earlier finish of this run may have answered other prompts, or as another model."""
    mine = set(session.execute(select(RESPONSES.c.id).where(RESPONSES.c.run_id == run_id)).scalars())
    gone = {place: key for place, (key, _) in known.items() if key in mine and place not in seen}
    _forget_said(session, gone)
    for some in some_of(sorted(gone.values())):
        session.execute(delete(RESPONSES).where(RESPONSES.c.id.in_(some)))


def _forget_said(session: Session, answers: dict[Place, int]) -> None:
    """Take away all that anybody said of these answers, by place and key."""
    for some in some_of(sorted(answers.values())):
        session.execute(delete(SCORES).where(SCORES.c.response_id.in_(some)))
    for model in {model for _, model in answers}:
        of_it = or_(VERDICTS.c.model_a == model, VERDICTS.c.model_b == model)
        for some in some_of(sorted(prompt for prompt, name in answers if name == model)):
            session.execute(delete(VERDICTS).where(of_it, VERDICTS.c.prompt_key.in_(some)))


def forget_answers(session: Session, run_ids: Sequence[int]) -> None:
    """Take away what these runs answered, and all that anybody said of it."""
    one_at_a_time(session, ANSWERS)  # a judge that finishes now must not judge what is gone
    of_runs = RESPONSES.c.run_id.in_(run_ids)
    mine = RESPONSES.c.prompt_key == VERDICTS.c.prompt_key
    named = or_(RESPONSES.c.model == VERDICTS.c.model_a, RESPONSES.c.model == VERDICTS.c.model_b)
    session.execute(delete(VERDICTS).where(exists().where(of_runs, mine, named)))
    session.execute(delete(RESPONSES).where(of_runs))  # their scores go with them


def replaced_since(
    session: Session, experiment_id: int, set_name: str, texts: Mapping[tuple[str, str], str]
) -> list[tuple[str, str]]:
    """Which of these answers, by prompt's id and model, say something else by now. Those that are gone do not count."""
    if not texts:
        return []
    prompts = known_prompts(session, experiment_id, set_name)
    answers = answers_of(session, experiment_id, set_name)
    now = {
        (prompt_id, model): answers.get((prompts[prompt_id][0], model))
        for prompt_id, model in texts
        if prompt_id in prompts
    }
    return [place for place, found in now.items() if found is not None and found[1] != texts[place]]


def take_scores(
    session: Session, experiment_id: int, set_name: str, rows: Iterable[ScoreRow], run_id: int | None = None
) -> int:
    """Keep what a judge gave each answer; the later score of one judge counts. Raises KeyError for an unknown answer."""
    one_at_a_time(session, ANSWERS)
    prompts = known_prompts(session, experiment_id, set_name)
    answers = answer_keys(session, experiment_id, set_name)
    made = {(answers[prompts[row.prompt_id][0], row.model], row.judge): row.score for row in rows}
    if run_id is not None:
        session.execute(delete(SCORES).where(SCORES.c.run_id == run_id))
    for judge in {judge for _, judge in made}:
        mine = [key for key, each in made if each == judge]
        for some in some_of(mine):
            session.execute(delete(SCORES).where(SCORES.c.judge == judge, SCORES.c.response_id.in_(some)))
    insert_all(
        session,
        SCORES,
        (
            {"response_id": key, "judge": judge, "score": score, "run_id": run_id}
            for (key, judge), score in made.items()
        ),
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
    one_at_a_time(session, ANSWERS)
    answers = answer_keys(session, experiment_id, set_name)
    prompts = known_prompts(session, experiment_id, set_name)
    if answers:
        problems = list(_unanswered(rows, prompts, answers))
        if problems:
            raise RowProblems(problems)
    else:
        prompts = make_known(session, experiment_id, set_name, {row.prompt_id: None for _, row in rows})
    if run_id is not None:
        session.execute(delete(VERDICTS).where(VERDICTS.c.run_id == run_id))
        _forget(session, rows, prompts)
    insert_all(session, VERDICTS, (_verdict(row, prompts[row.prompt_id][0], run_id, source) for _, row in rows))
    return len(rows)


def _unanswered(
    rows: Numbered[VerdictRow], prompts: dict[str, tuple[int, Any]], answers: dict[Place, int]
) -> Iterable[RowProblem]:
    """Verdicts on answers that are not there, where the experiment has answers: what is wrong with each line first."""
    models = {model for _, model in answers}
    hint = "Import the answers first, or correct the name."
    for line, row in rows:
        known = prompts.get(row.prompt_id)
        stranger = next((model for model in (row.model_a, row.model_b) if model not in models), None)
        if stranger is not None:
            yield RowProblem(line, f"“{stranger[:60]}” has no answers in this experiment.", hint)
        elif known is None:
            yield RowProblem(line, f"There is no prompt “{row.prompt_id[:60]}” in this experiment.", hint)
        else:
            silent = next((model for model in (row.model_a, row.model_b) if (known[0], model) not in answers), None)
            if silent is not None:
                yield RowProblem(line, f"“{silent[:60]}” has no answer to the prompt “{row.prompt_id[:60]}”.", hint)


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
        for some in some_of(sorted(keys)):
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
