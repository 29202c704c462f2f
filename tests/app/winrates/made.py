"""Rows of answers and verdicts, made for the tests of results, and files of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, SQLModel, select

from app.db import Database
from app.experiments import service as experiments
from app.models import Experiment, Run
from app.runs import service, states
from app.winrates.imports import Imported, import_responses, import_verdicts
from app.winrates.intake import take_responses
from app.winrates.rows import as_response
from training.config import StageConfig

Row = dict[str, Any]


def answer(prompt_id: str, model: str, response: str = "Yes.", **more: Any) -> Row:
    return {"prompt_id": prompt_id, "model": model, "response": response, **more}


def verdict(prompt_id: str, model_a: str, model_b: str, preference: float, judge: str = "llm:j", **more: Any) -> Row:
    row = {"prompt_id": prompt_id, "model_a": model_a, "model_b": model_b, "judge": judge, "preference": preference}
    return {**row, **more}


def said(model: str, baseline: str, preferences: Iterable[float | None], judge: str = "llm:j") -> list[Row]:
    """One verdict a prompt, p0, p1 and so on; None: none on this prompt."""
    return [
        verdict(f"p{number}", model, baseline, preference, judge)
        for number, preference in enumerate(preferences)
        if preference is not None
    ]


def answered(models: Iterable[str], prompts: int, response: str = "Yes.") -> list[Row]:
    """The same answer of every model to p0, p1 and so on."""
    return [answer(f"p{number}", model, response) for number in range(prompts) for model in models]


def lines(rows: Sequence[Row | bytes]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


@dataclass(frozen=True)
class Bring:
    """Imports rows, or a file's bytes, into a database."""

    database: Database
    folder: Path

    def file(self, content: Sequence[Row | bytes] | bytes, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else lines(content))
        return path

    def responses(self, content: Sequence[Row | bytes] | bytes, experiment: str = "e", prompts: str = "") -> Imported:
        return import_responses(self.database, self.file(content, "responses.jsonl"), experiment, prompts)

    def verdicts(self, content: Sequence[Row | bytes] | bytes, experiment: str = "e", prompts: str = "") -> Imported:
        return import_verdicts(self.database, self.file(content, "verdicts.jsonl"), experiment, prompts)


def count(database: Database, *tables: type[SQLModel]) -> list[int]:
    with database.read() as session:
        return [len(session.exec(select(table)).all()) for table in tables]


def the(session: Session, name: str = "e") -> Experiment:
    found = experiments.by_name(session, name)
    assert found is not None
    return found


def run(session: Session, name: str, config: StageConfig, parents: Sequence[Run] = (), **values: Any) -> Run:
    """A finished run of the experiment “e”, which is made where it is not there."""
    owner = experiments.get_or_create(session, "e")
    made = service.launch(session, owner, service.NewRun(name, config, [parent.id or 0 for parent in parents]))
    made.state = states.FINISHED
    for key, value in values.items():
        setattr(made, key, value)
    session.flush()
    return made


def finish(session: Session, owner: Experiment, rows: Sequence[Row], run_id: int, prompts: str = "held_out") -> int:
    """What a respond run answered goes in, as at its finish."""
    numbered = [(number, as_response(row)) for number, row in enumerate(rows, 1)]
    return take_responses(session, owner.id or 0, prompts, numbered, run_id)
