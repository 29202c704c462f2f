"""Files of answers and verdicts made elsewhere, taken in whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session, col, func, select

from app.db import Database, one_at_a_time
from app.errors import Conflict, Invalid
from app.experiments import service as experiments
from app.models import Experiment, Prompt, Response, Verdict
from app.winrates import sets
from app.winrates.intake import ANSWERS, RowProblems, take_responses, take_verdicts
from app.winrates.rows import ResponseRow, VerdictRow, as_response, as_verdict
from training.data.lines import BadRow, RowError, RowProblem, numbered_lines, parse_row
from training.errors import DataError

T = TypeVar("T", ResponseRow, VerdictRow)
MOST_NAMED = 20  # bad lines that one refusal names
MOST_BYTES = 1 << 30  # of a file: its rows are held while they are checked, a verdict in about 250 bytes


@dataclass(frozen=True)
class Imported:
    """What came in. `notes`: what is worth knowing of it, sentence by sentence."""

    rows: int
    experiment: Experiment
    set_name: str
    models: int
    prompts: int
    judges: int = 0
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As docs/cli.md shows it."""
        return {
            "imported": self.rows,
            "experiment": {"id": self.experiment.id, "name": self.experiment.name},
            "prompts": self.set_name,
            "prompt_count": self.prompts,
            "models": self.models,
            **({"judges": self.judges} if self.judges else {}),
            "notes": self.notes,
        }


def import_responses(database: Database, file: Path, experiment: str, set_name: str = "", name: str = "") -> Imported:
    """Answers of models. `name`: what messages call the file. Raises Invalid (`fields` by line), Conflict."""
    name = name or file.name
    rows = _read(file, name, as_response)
    with database.write() as session:
        owner = _owner(session, experiment)
        chosen = sets.for_import(session, owner, set_name)
        new = _fitting(name, lambda: take_responses(session, owner.id or 0, chosen, rows))
        notes = [*_known_before(len(rows) - new), *_lonely(session, owner, chosen, rows)]
    models, prompts = {row.model for _, row in rows}, {row.prompt_id for _, row in rows}
    return Imported(len(rows), owner, chosen, len(models), len(prompts), notes=notes)


def import_verdicts(database: Database, file: Path, experiment: str, set_name: str = "", name: str = "") -> Imported:
    """Verdicts of judges, of people too. The same file twice is refused: its votes would count double.

    Raises Invalid (`fields` by line), Conflict.
    """
    name = name or file.name
    digest = hashlib.sha256()
    rows = _read(file, name, as_verdict, digest.update)
    source = digest.hexdigest()
    with database.write() as session:
        owner = _owner(session, experiment)
        chosen = sets.for_import(session, owner, set_name)
        _refuse_twice(session, owner, chosen, source, name)
        _fitting(name, lambda: take_verdicts(session, owner.id or 0, chosen, rows, source=source))
    models = {model for _, row in rows for model in (row.model_a, row.model_b)}
    prompts, judges = {row.prompt_id for _, row in rows}, {row.judge for _, row in rows}
    return Imported(len(rows), owner, chosen, len(models), len(prompts), len(judges))


def _owner(session: Session, name: str) -> Experiment:
    """The experiment of this name, made where it is new."""
    one_at_a_time(session, ANSWERS)
    return experiments.get_or_create(session, name)


def _refuse_twice(session: Session, owner: Experiment, set_name: str, source: str, name: str) -> None:
    statement = select(Verdict.id).join(Prompt, col(Prompt.id) == col(Verdict.prompt_key))
    statement = statement.where(Prompt.experiment_id == owner.id, Prompt.set_name == set_name, Verdict.source == source)
    if session.exec(statement.limit(1)).first() is not None:
        raise Conflict(f"The verdicts of {name} are in “{owner.name}” already; twice, they would count double.")


def _read(
    file: Path, name: str, convert: Callable[[dict[str, Any]], T], watch: Callable[[bytes], object] = len
) -> list[tuple[int, T]]:
    """All rows, each with its line; `watch` sees every block of the file. Raises Invalid: it names the first bad lines."""
    if file.exists() and not file.is_file():  # opening a pipe would wait for ever
        raise Invalid(f"{file} is no plain file.", "Name a JSON Lines file.")
    if file.exists() and file.stat().st_size > MOST_BYTES:
        raise Invalid(
            f"{name} has over {MOST_BYTES >> 30} GiB.", "Split it into several files: `split -l 1000000 FILE`."
        )
    rows: list[tuple[int, T]] = []
    problems: list[RowProblem] = []
    try:
        for number, line in numbered_lines(file, watch, name):
            try:
                rows.append((number, convert(parse_row(line))))
            except RowError as error:
                problems.append(RowProblem(number, error.message, error.hint))
                if len(problems) > MOST_NAMED:
                    break
    except DataError as error:
        raise Invalid(error.failure.message, error.failure.hint, fields={"file": error.failure.message}) from None
    if problems:
        raise _named(name, problems)
    if not rows:
        raise Invalid(
            f"{name} holds only blank lines.", "A file is JSON Lines: one object a line.", fields={"file": "Empty."}
        )
    return rows


def _fitting(name: str, take: Callable[[], int]) -> int:
    try:
        return take()
    except RowProblems as error:
        raise _named(name, error.problems) from None


def _named(name: str, problems: list[RowProblem]) -> Invalid:
    """The error that names each bad line; nothing of the file was taken in."""
    said = BadRow(name, problems[:MOST_NAMED], more=len(problems) > MOST_NAMED)
    fields = {f"line {each.line}": f"{each.message} {each.hint}".strip() for each in said.problems}
    return Invalid(said.failure.message, said.failure.hint, fields=fields)


def _known_before(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{count:,} answers were there already, the same." if count > 1 else "1 answer was there already, the same."
    ]


def _lonely(session: Session, owner: Experiment, set_name: str, rows: list[tuple[int, ResponseRow]]) -> list[str]:
    """Prompts of this file that one model alone has answered: nothing can be compared there."""
    of_set = (Prompt.experiment_id == owner.id, Prompt.set_name == set_name)
    answered = select(Prompt.prompt_id).join(Response, col(Response.prompt_key) == col(Prompt.id)).where(*of_set)
    models = select(func.count(func.distinct(Response.model))).join(Prompt, col(Response.prompt_key) == col(Prompt.id))
    if session.exec(models.where(*of_set)).one() == 1:
        return []
    once = set(session.exec(answered.group_by(col(Prompt.prompt_id)).having(func.count() == 1)))
    alone = [(line, row.prompt_id) for line, row in rows if row.prompt_id in once]
    if not alone:
        return []
    first = ", ".join(f"“{prompt_id[:40]}” (line {line:,})" for line, prompt_id in alone[:5])
    more = f" and {len(alone) - 5:,} more" if len(alone) > 5 else ""
    what = "1 prompt was" if len(alone) == 1 else f"{len(alone):,} prompts were"
    return [f"{what} answered by one model only, so nothing is compared there: {first}{more}."]
