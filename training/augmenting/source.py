"""The data that prompts are drawn from: what is held out is taken out first, and what is not drawn is left as it stands."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.commits import Commits
from training.config import AugmentConfig
from training.data.examples import Message, SetPrompt, Source
from training.data.held_out import HeldOutSet, draw, held_out_set
from training.data.leaks import Question
from training.data.normal import digest
from training.data.rows import NOUNS
from training.data.sources import Part, joined, load_sources, raw_rows
from training.errors import DataError
from training.files import disk_errors
from training.journal import Journal
from training.leak_guard import without_held_out
from training.rundir import RunDir, RunFile, temporary_beside


@dataclass(frozen=True)
class Data:
    """The distinct prompts of a run's data in the order of the draw, the first `drawn` of which are drawn.

    `parts`: its rows, those apart that ask what is held out.
    """

    prompts: list[SetPrompt]
    drawn: int
    parts: list[Part[Source]]
    held_out: HeldOutSet | None

    @property
    def chosen(self) -> list[SetPrompt]:
        return self.prompts[: self.drawn]


def read_data(config: AugmentConfig, run: RunFile, run_dir: RunDir, journal: Journal) -> Data:
    """Read the data and draw. Raises DataError, HubError, InputError."""
    journal.status("reading the data")
    held_out = held_out_set(run, run_dir, journal)
    parts = load_sources(config.dataset, run.inputs, journal, Commits(run_dir.commits))
    _check_one_kind(parts)
    if held_out is not None:
        parts = _without(parts, held_out, run, run_dir, journal)
    prompts, distinct = draw((row.prompt for row in joined(parts) if row.prompt.messages), None, config.seed)
    if not distinct:
        raise DataError(
            "No row of the data asks anything, so there is no prompt to draw.",
            "Choose another data set.",
            field="dataset",
        )
    count = share_of(distinct, config.fraction)
    rows = sum(len(part.rows) for part in parts)
    journal.log(f"{count:,} of {distinct:,} distinct prompts are drawn, from {rows:,} rows.")
    return Data(prompts, count, parts, held_out)


def share_of(distinct: int, fraction: float) -> int:
    """How many prompts are drawn: a half is rounded up, and one is drawn at least."""
    return min(distinct, max(1, math.floor(fraction * distinct + 0.5)))


def asked(messages: Sequence[Message]) -> str:
    """What a prompt asks, as its embedding takes it in: all its turns but the system's."""
    return Question.of(messages).text


def _check_one_kind(parts: Sequence[Part[Source]]) -> None:
    """What is left of the data is one file, and a data file holds one kind. Raises DataError."""
    kinds = {part.rows[0].kind: part.name for part in parts if part.rows}
    if len(kinds) > 1:
        told = " and ".join(f"{name} holds {NOUNS[kind]}" for kind, name in kinds.items())  # type: ignore[index]
        raise DataError(
            f"{told}: prompts are drawn from one kind of data.", "Name data sets of one kind.", field="dataset"
        )


def _without(
    parts: list[Part[Source]], held_out: HeldOutSet, run: RunFile, run_dir: RunDir, journal: Journal
) -> list[Part[Source]]:
    rows: list[Part[Any]] = [
        Part(part.reference, part.name, part.path, [source.row for source in part.rows], part.numbers) for part in parts
    ]
    left = []
    for part, kept in zip(parts, without_held_out(rows, held_out, run, run_dir, journal), strict=True):
        numbers = set(kept.numbers)
        sources = [source for number, source in zip(part.numbers, part.rows, strict=True) if number in numbers]
        left.append(Part(part.reference, part.name, part.path, sources, kept.numbers))
    return left


def write_remaining(data: Data, path: Path, run_dir: RunDir, journal: Journal) -> int:
    """Write the rows whose prompts were not drawn, as they stand, in their order. Returns how many. Raises DiskFull."""
    drawn = {digest(prompt.messages) for prompt in data.chosen}
    commits, written = Commits(run_dir.commits), 0
    temporary = temporary_beside(path)
    try:
        with disk_errors("the remaining rows"), temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            for part in data.parts:
                kept = {
                    number
                    for number, source in zip(part.numbers, part.rows, strict=True)
                    if digest(source.prompt.messages) not in drawn
                }
                left = len(kept)
                for number, line in raw_rows(part, journal, commits) if kept else ():
                    if number in kept:
                        file.write(line + b"\n")
                        written, left = written + 1, left - 1
                        if not left:
                            break
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return written
