"""What a finished run made: looked at once, and taken into the database with the change of its state, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session

from app.datasets.synthesis import MadePairs, made_by_run
from app.db import one_at_a_time
from app.errors import AppError
from app.models import Run
from app.runs.inputs import MODEL_STAGES
from app.settings import Settings
from app.winrates.intake import (
    ANSWERS,
    RowProblems,
    replaced_since,
    take_responses,
    take_scores,
    take_verdicts,
)
from app.winrates.rows import ResponseRow, ScoreRow, VerdictRow, as_response, as_score, as_verdict
from training.data.lines import RowError, numbered_lines, parse_row
from training.errors import DataError
from training.rundir import RunDir

T = TypeVar("T")
Named = tuple[str, str]  # an answer: its prompt's id and its model


class Incomplete(Exception):
    """The trainer ended well, but what it left is not whole; the message says what is wrong."""


@dataclass(frozen=True)
class Outputs:
    """What goes into the database: rows with their lines."""

    run_id: int
    prompt_set: str
    responses: list[tuple[int, ResponseRow]] = field(default_factory=list)
    scores: list[tuple[int, ScoreRow]] = field(default_factory=list)
    verdicts: list[tuple[int, VerdictRow]] = field(default_factory=list)
    judged: dict[Named, str] = field(default_factory=dict)  # the answers' texts, as the judge was given them
    pairs: MadePairs | None = None  # that become a version of a data set

    def take_in(self, session: Session, settings: Settings) -> bool:
        """Write them, in the transaction of the change of state. Raises Incomplete: then nothing is written."""
        if self.pairs is not None:
            self.pairs.take_in(session, settings)
        if not (self.responses or self.scores or self.verdicts):
            return True
        experiment = session.get_one(Run, self.run_id).experiment_id
        one_at_a_time(session, ANSWERS)
        if replaced := replaced_since(session, experiment, self.prompt_set, self.judged):
            raise Incomplete(_replaced(replaced))
        try:
            if self.responses:
                take_responses(session, experiment, self.prompt_set, self.responses, self.run_id)
            if self.scores:
                take_scores(session, experiment, self.prompt_set, [row for _, row in self.scores], self.run_id)
            if self.verdicts:
                take_verdicts(session, experiment, self.prompt_set, self.verdicts, self.run_id)
        except RowProblems as error:
            raise Incomplete(f"Its outputs do not fit the experiment: {str(error).rstrip('.')}.") from None
        except KeyError:
            raise Incomplete("Answers that it judged are gone from the experiment.") from None
        return True


@contextmanager
def outputs_of(stage: str, run_dir: RunDir, settings: Settings) -> Iterator[Outputs]:
    """What a finished run left, ready to be taken in. Raises Incomplete where something is missing or cannot be read."""
    found = read_outputs(stage, run_dir)
    if stage != "augment":
        yield found
        return
    with ExitStack() as stack:
        try:
            pairs = stack.enter_context(made_by_run(settings, run_dir))
        except AppError as error:
            raise Incomplete(f"Its pairs cannot be taken in: {error.message} {error.hint}".rstrip(" .") + ".") from None
        except (OSError, ValueError, KeyError) as error:
            raise Incomplete(f"The trainer ended well, but its pairs cannot be read: {error}.") from None
        yield replace(found, pairs=pairs)


def read_outputs(stage: str, run_dir: RunDir) -> Outputs:
    """What goes into tables row by row. Raises Incomplete where something is missing or cannot be read."""
    content = run_dir.read_config()
    place = content.run_id, content.prompt_set or ""
    if stage in MODEL_STAGES and not run_dir.model.is_dir():
        raise Incomplete("The trainer ended well, but left no model.")
    if stage == "respond":
        answers = Outputs(*place, responses=_rows(run_dir.responses, as_response))
        if not answers.responses:
            raise Incomplete("The trainer ended well, but left no answers.")
        return answers
    if stage == "judge":
        found = Outputs(*place, scores=_rows(run_dir.scores, as_score), verdicts=_rows(run_dir.verdicts, as_verdict))
        if not (found.scores or found.verdicts):
            raise Incomplete("The judge ended well, but judged nothing that could be read.")
        return replace(found, judged=_judged(run_dir, found))
    return Outputs(*place)


def _judged(run_dir: RunDir, found: Outputs) -> dict[Named, str]:
    """Of the answers that the judge was given, those that it said something of."""
    named = {(row.prompt_id, row.model) for _, row in found.scores}
    named |= {(row.prompt_id, model) for _, row in found.verdicts for model in (row.model_a, row.model_b)}
    given = _rows(run_dir.given_responses, lambda row: ((str(row["prompt_id"]), row["model"]), row["response"]))
    return {place: text for _, (place, text) in given if place in named}


def _replaced(answers: Sequence[Named]) -> str:
    prompt_id, model = answers[0]
    have = "has" if len(answers) == 1 else "have"
    first = "that" if len(answers) == 1 else "first that"
    return (
        f"{len(answers):,} of the answers that it judged {have} been replaced since: {first} of “{model}” to the prompt "
        f"“{prompt_id}”."
    )


def _rows(path: Path, convert: Callable[[dict[str, Any]], T]) -> list[tuple[int, T]]:
    """All rows of a file; none where it is not there or empty."""
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        return [(number, convert(parse_row(line))) for number, line in numbered_lines(path)]
    except (RowError, DataError) as error:
        raise Incomplete(f"{path.name} cannot be read: {str(error).rstrip('.')}.") from None
