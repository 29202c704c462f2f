"""Data files: every row checked and counted, or read. No torch here: the web side reads this."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from training.config import STAGES
from training.data.examples import Flaw
from training.data.lines import BadRow, RowError, RowProblem, numbered_lines, parse_row
from training.data.rows import NOUNS, Kind, Row, check_row, wrong_kind
from training.errors import DataError

MOST_PROBLEMS = 20  # bad lines that one scan names
MOST_COMPARED = 5_000_000  # rows among which duplicates are counted: 8 bytes each

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetFacts:
    """What a scan found in a data file."""

    kind: Kind
    rows: int
    bytes: int
    sha256: str
    characters: int  # of all contents
    turns: int  # messages in all rows; 0 for texts
    roles: dict[str, int]  # messages by role
    longest: int  # characters of the longest row
    longest_line: int
    duplicates: int  # rows whose content an earlier row has (among the first MOST_COMPARED)
    empty: int  # texts without a word: skipped in training
    flaws: dict[Flaw, dict[str, int]] = field(default_factory=dict)
    """Pairs with nothing to learn, left out of training: {"equal": {"count": 12, "line": 3}}, the first line."""


def scan(
    path: Path,
    *,
    name: str | None = None,
    rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetFacts:
    """Read a whole file once and check every row, in bounded memory. `progress(bytes done, bytes in all)`.

    `name`: what messages call the file, where that is not its name on disk. `rows`: look at the first so many alone;
    bytes and hash are then those of what was read.

    Raises DataError where the file is something else or holds no rows, BadRow with the first MOST_PROBLEMS bad
    lines.
    """
    digest, done = hashlib.sha256(), 0

    def watch(block: bytes) -> None:
        nonlocal done
        digest.update(block)
        done += len(block)
        if progress is not None:
            progress(done, size)

    name = name or path.name
    size = path.stat().st_size if os.access(path, os.R_OK) else 0
    tally, problems = _Tally(), []
    for number, line in islice(numbered_lines(path, watch, name), rows):
        try:
            row = check_row(parse_row(line))
            tally.add(number, row)
        except RowError as error:
            problems.append(RowProblem(number, error.message, error.hint))
            if len(problems) > MOST_PROBLEMS:
                break
    if problems:
        raise BadRow(name, problems[:MOST_PROBLEMS], more=len(problems) > MOST_PROBLEMS)
    return tally.facts(name, done, digest.hexdigest())


def check_kind(name: str, kind: Kind, stage: str) -> None:
    """Raise DataError where this stage cannot train on rows of this kind."""
    if kind not in STAGES[stage].takes:
        raise DataError(*wrong_kind(f"{name} holds", kind, stage))


class _Tally:
    """Counts over the rows of a file."""

    def __init__(self) -> None:
        self.kind: Kind | None = None
        self.first = self.rows = self.characters = self.longest = self.longest_line = self.empty = 0
        self.roles: Counter[str] = Counter()
        self.flaws: dict[Flaw, dict[str, int]] = {}
        self.hashes = array("q")

    def add(self, number: int, row: Row) -> None:
        if row.kind != self.kind:
            if self.kind is not None:
                raise RowError(
                    f"the row is one of the {NOUNS[row.kind]}, while line {self.first:,} is one of the {NOUNS[self.kind]}.",
                    "Keep each kind in a file of its own.",
                )
            self.kind, self.first = row.kind, number
        contents = list(row.texts)
        for chat in row.chats:
            for message in chat:
                self.roles[message["role"]] += 1
                contents.append(message["content"])
        if row.flaw is not None:
            self.flaws.setdefault(row.flaw, {"count": 0, "line": number})["count"] += 1
        length = sum(map(len, contents))
        self.rows += 1
        self.characters += length
        self.empty += row.kind == "text" and (not length or contents[0].isspace())
        if length > self.longest:
            self.longest, self.longest_line = length, number
        if len(self.hashes) < MOST_COMPARED:
            self.hashes.append(hash(tuple(contents)))

    def facts(self, name: str, size: int, sha256: str) -> DatasetFacts:
        if self.kind is None:
            raise DataError(f"{name} holds only blank lines.", "A data set is JSON Lines: one object a line.")
        if self.empty == self.rows:
            raise DataError(f"{name} holds only empty texts.", "Each row's “text” is what the model learns.")
        if sum(flaw["count"] for flaw in self.flaws.values()) == self.rows:
            raise DataError(
                f"{name} holds only pairs with nothing to learn ({', '.join(self.flaws)}).",
                "Each row needs one prompt and two different answers to it.",
            )
        return DatasetFacts(
            kind=self.kind,
            rows=self.rows,
            bytes=size,
            sha256=sha256,
            characters=self.characters,
            turns=self.roles.total(),
            roles=dict(self.roles),
            longest=self.longest,
            longest_line=self.longest_line,
            duplicates=len(self.hashes) - len(np.unique(np.frombuffer(self.hashes, np.int64))),
            empty=self.empty,
            flaws=self.flaws,
        )


def read_rows(path: Path, convert: Callable[[dict[str, Any]], T], rows: int | None = None) -> Iterator[tuple[int, T]]:
    """The rows of a file, the first `rows` of them at most, each with its line's number. Raises DataError, BadRow.

    `convert`: what makes a row of a line's object, and raises RowError (`training.data.rows`).
    """
    for number, line in islice(numbered_lines(path), rows):
        try:
            yield number, convert(parse_row(line))
        except RowError as error:
            raise BadRow(path.name, [RowProblem(number, error.message, error.hint)]) from None
