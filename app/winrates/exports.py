"""Answers and verdicts as data files give them out: for judges, for others' tools, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import select as core_select
from sqlmodel import Session, col, select

from app.errors import Invalid
from app.models import Experiment, Prompt, Response, Run, Score
from app.runs.inputs import find_run
from app.winrates import sets
from app.winrates.known import PROMPTS, VERDICTS
from training.config import JudgeConfig, RespondConfig, parse_config
from training.references import parse_reference

AT_ONCE = {"yield_per": 1000}  # rows that are in memory
BLOCK = 500  # rows that are written at once


def responses(
    session: Session, experiment: Experiment, set_name: str, models: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The data file of responses, prompt by prompt. `models`: of these alone."""
    statement = select(Prompt, Response).join(Response, col(Response.prompt_key) == col(Prompt.id))
    statement = statement.where(Prompt.experiment_id == experiment.id, Prompt.set_name == set_name)
    if models is not None:
        statement = statement.where(col(Response.model).in_(models))
    statement = statement.order_by(col(Prompt.id), col(Response.id))
    for prompt, answer in session.exec(statement, execution_options=AT_ONCE):
        row = {
            "prompt_id": prompt.prompt_id,
            "model": answer.model,
            "prompt": prompt.messages,
            "category": prompt.category,
            "reference": prompt.reference,
            "response": answer.text,
            "ended": answer.ended,
            "tokens": answer.tokens,
            "checkpoint": answer.checkpoint,
        }
        yield {key: value for key, value in row.items() if value is not None}


def verdicts(session: Session, experiment: Experiment, set_name: str) -> Iterator[dict[str, Any]]:
    """The data file of verdicts, as they were given."""
    said = VERDICTS.c
    columns = (said.model_a, said.model_b, said.judge, said.preference, said.score_a, said.score_b, said.reason)
    statement = core_select(PROMPTS.c.prompt_id, *columns).join(PROMPTS, PROMPTS.c.id == said.prompt_key)
    statement = statement.where(PROMPTS.c.experiment_id == experiment.id, PROMPTS.c.set_name == set_name)
    for row in session.execute(statement.order_by(said.id), execution_options=AT_ONCE).mappings():
        yield {key: value for key, value in row.items() if value is not None and value != ""}


def scores(session: Session, experiment: Experiment, set_name: str) -> Iterator[dict[str, Any]]:
    """What judges gave answers one by one: `{"prompt_id", "model", "judge", "score"}`."""
    statement = select(Prompt.prompt_id, Response.model, Score.judge, Score.score)
    statement = statement.join(Response, col(Response.id) == col(Score.response_id))
    statement = statement.join(Prompt, col(Prompt.id) == col(Response.prompt_key))
    statement = statement.where(Prompt.experiment_id == experiment.id, Prompt.set_name == set_name)
    statement = statement.order_by(col(Prompt.id), Response.model, Score.judge)
    for prompt_id, model, judge, score in session.exec(statement, execution_options=AT_ONCE):
        yield {"prompt_id": prompt_id, "model": model, "judge": judge, "score": score}


def alpaca_eval(session: Session, experiment: Experiment, set_name: str, model: str) -> Iterator[dict[str, Any]]:
    """One model's answers as AlpacaEval's outputs: `{"instruction", "output", "generator", "dataset"}`.

    Raises, before the first row, NotFound where the model has no answers, Invalid where nobody knows what was asked.
    """
    of_set = (Prompt.experiment_id == experiment.id, Prompt.set_name == set_name)
    answered = select(Response.model).join(Prompt, col(Response.prompt_key) == col(Prompt.id)).where(*of_set)
    sets.one_of(sorted(session.exec(answered.distinct())), model, "model", "MODEL")
    asked = select(Prompt.messages).join(Response, col(Response.prompt_key) == col(Prompt.id)).where(*of_set)
    if not all(session.execute(asked.where(Response.model == model)).scalars()):
        raise Invalid(
            "Some of these prompts are known by their ids alone, and AlpacaEval's format holds what was asked.",
            "Import answers whose rows have “prompt”.",
        )
    return _as_outputs(session, experiment, set_name, model)


def _as_outputs(session: Session, experiment: Experiment, set_name: str, model: str) -> Iterator[dict[str, Any]]:
    for row in responses(session, experiment, set_name, [model]):
        yield {
            "instruction": "\n\n".join(turn["content"] for turn in row["prompt"]),
            "output": row["response"],
            "generator": model,
            "dataset": row.get("category") or set_name,
        }


def as_lines(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """JSON Lines, in blocks."""
    while some := list(islice(rows, BLOCK)):
        yield b"".join(orjson.dumps(row) + b"\n" for row in some)


def as_array(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """One JSON array, one row a line, in blocks."""
    between = b"[\n"
    while some := list(islice(rows, BLOCK)):
        yield between + b",\n".join(orjson.dumps(row) for row in some)
        between = b",\n"
    yield b"[]\n" if between == b"[\n" else b"\n]\n"


def answering_runs(session: Session, experiment: Experiment, config: JudgeConfig) -> list[RespondConfig]:
    """The configs of the respond runs that a judge run names."""
    found = []
    for text in config.responses:
        run = find_run(session, parse_reference(text).name, experiment)
        answering = parse_config(run.config) if isinstance(run, Run) else None
        if isinstance(answering, RespondConfig):
            found.append(answering)
    return found


def set_of_runs(session: Session, experiment: Experiment, config: JudgeConfig) -> str:
    """The prompt set that these runs answer; empty where none is named. Raises Invalid where they differ."""
    found = {each.prompts for each in answering_runs(session, experiment, config)}
    if len(found) > 1:
        raise Invalid(
            f"The runs answer different prompts: {', '.join(sorted(found))}.",
            "Judge each prompt set by a run of its own.",
        )
    return next(iter(found), "")


def models_of_runs(session: Session, experiment: Experiment, config: JudgeConfig) -> list[str] | None:
    """What tables call the models of these runs; None where none is named: all of the experiment's."""
    runs = answering_runs(session, experiment, config)
    return [name for run in runs for name in run.answerers()] if config.responses else None
