"""What a finished run made: looked at once, and taken into the database with the change of its state, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session

from app.models import Run
from app.runs.inputs import MODEL_STAGES
from app.winrates.intake import RowProblems, take_responses, take_scores, take_verdicts
from app.winrates.rows import ResponseRow, ScoreRow, VerdictRow, as_response, as_score, as_verdict
from training.data.lines import RowError, numbered_lines, parse_row
from training.errors import DataError
from training.rundir import RunDir

T = TypeVar("T")


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

    def take_in(self, session: Session) -> bool:
        """Write them, in the transaction of the change of state. Raises Incomplete: then nothing is written."""
        if not (self.responses or self.scores or self.verdicts):
            return True
        experiment = session.get_one(Run, self.run_id).experiment_id
        try:
            if self.responses:
                take_responses(session, experiment, self.prompt_set, self.responses, self.run_id)
            if self.scores:
                take_scores(session, experiment, self.prompt_set, [row for _, row in self.scores], self.run_id)
            if self.verdicts:
                take_verdicts(session, experiment, self.prompt_set, self.verdicts, self.run_id)
        except RowProblems as error:
            raise Incomplete(f"Its outputs do not fit the experiment: {error}.") from None
        except KeyError:
            raise Incomplete("Answers that it judged are gone from the experiment.") from None
        return True


def read_outputs(stage: str, run_dir: RunDir) -> Outputs:
    """Raises Incomplete where something is missing or cannot be read."""
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
        return found
    return Outputs(*place)


def _rows(path: Path, convert: Callable[[dict[str, Any]], T]) -> list[tuple[int, T]]:
    """All rows of a file; none where it is not there or empty."""
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        return [(number, convert(parse_row(line))) for number, line in numbered_lines(path)]
    except (RowError, DataError) as error:
        raise Incomplete(f"{path.name} cannot be read: {error}.") from None
