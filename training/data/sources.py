"""Examples, pairs and prompts from references: file by file, in order, each journalled with where it came from."""

from __future__ import annotations

import contextlib
import gc
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from training.commits import Commits
from training.data.examples import FLAWS, Example, Flaw, Pair, SetPrompt, Source, pair_flaw
from training.data.formats import check_kind, read_rows, scan
from training.data.lines import RowError, data_files, numbered_lines
from training.data.normal import content_id
from training.data.rows import as_example, as_pair, as_prompt, as_source
from training.errors import DataError, InputError
from training.hub import fetch_dataset
from training.journal import Journal
from training.references import Reference, parse_reference
from training.rundir import ResolvedInput
from training.throttle import Throttle
from training.words import were

NAMED_ROWS = 5  # of those that were left out for one reason

T = TypeVar("T", Example, Pair, SetPrompt, Source)
Numbered = Iterable[tuple[int, T]]


@dataclass(frozen=True)
class Part(Generic[T]):
    """Rows of one file, or of one split of the Hub, each with its number there from 1."""

    reference: str  # as the config has it
    name: str  # for messages: the reference, and the file where it has several
    path: Path | None  # of the file; None: of the Hub
    rows: list[T]
    numbers: array[int]


@dataclass(frozen=True)
class _Form(Generic[T]):
    """What is to be made of rows. `finish(name, numbered rows, journal)` gives those that are to be used."""

    stage: str  # one that takes such rows
    noun: str
    convert: Callable[[dict[str, Any]], T]
    finish: Callable[[str, Numbered[T], Journal], Numbered[T]]
    purpose: str = "to train on"
    field: str | None = "dataset"  # the setting that names them


def load_examples(
    references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Part[Example]]:
    """All chats and texts of these data sets, in order. Raises DataError, HubError, InputError.

    `inputs` says where the worker found each reference; `hf:` ones are fetched here, of the commits that
    the run began with.
    """
    return _load(_Form("sft", "examples", as_example, _all), references, inputs, journal, commits)


def load_pairs(
    references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Part[Pair]]:
    """All pairs of these data sets, in order, but for those with nothing to learn: they are counted in the journal.

    Raises as `load_examples` does.
    """
    return _load(_Form("dpo", "pairs", as_pair, _without_flaws), references, inputs, journal, commits)


def load_prompt_rows(
    reference: str,
    inputs: Mapping[str, ResolvedInput],
    journal: Journal,
    commits: Commits,
    field: str | None,
    repeats: bool = False,
) -> list[SetPrompt]:
    """The prompts of a data set of prompts, chats or pairs, in order; equal ones that have no ids of their own once.

    `field`: the setting that names it, for errors. `repeats`: take equal ones as often as they are there.
    Raises as `load_examples` does, and where two prompts have one id.
    """
    form = _Form("respond", "prompts", as_prompt, _Distinct(repeats).finish, "to answer", field)
    return joined(_load(form, [reference], inputs, journal, commits))


def load_sources(
    references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Part[Source]]:
    """All rows of these data sets of pairs, prompts or chats, in order, with their prompts. Raises as `load_examples` does."""
    form = _Form("augment", "rows", as_source, _all, "to draw prompts from")
    return _load(form, references, inputs, journal, commits)


def raw_rows(part: Part[Any], journal: Journal, commits: Commits) -> Iterator[tuple[int, bytes]]:
    """A part's rows again, as they stand, one JSON object each; with those behind its last. Raises HubError, DataError."""
    if part.path is not None:
        yield from numbered_lines(part.path)
        return
    for number, row in enumerate(fetch_dataset(parse_reference(part.reference), journal, commits), 1):
        yield number, orjson.dumps(row, default=str)


def joined(parts: Iterable[Part[T]]) -> list[T]:
    """The rows of all parts, in order."""
    return [row for part in parts for row in part.rows]


def _load(
    form: _Form[T], references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Part[T]]:
    with _collector_paused():
        return [part for text in references for part in _parts(form, text, inputs, journal, commits)]


def _parts(
    form: _Form[T], text: str, inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Part[T]]:
    reference = parse_reference(text)
    if reference.kind == "hf":
        numbered = islice(_hub_rows(text, form.convert, fetch_dataset(reference, journal, commits)), reference.rows)
        parts = [_part(form, text, text, None, numbered, journal)]
        journal.log(f"{len(parts[0].rows):,} {form.noun} from {text}.")
    else:
        parts = _file_parts(form, reference, inputs.get(text, ResolvedInput(reference=text)), journal)
    if not any(part.rows for part in parts):
        raise DataError(f"{text} holds no {form.noun} {form.purpose}.", "Choose another data set.", field=form.field)
    return parts


def _part(
    form: _Form[T], reference: str, name: str, path: Path | None, numbered: Numbered[T], journal: Journal
) -> Part[T]:
    part = Part[T](reference, name, path, [], array("q"))
    for number, row in form.finish(name, numbered, journal):
        part.numbers.append(number)
        part.rows.append(row)
    return part


def _all(name: str, numbered: Numbered[T], journal: Journal) -> Numbered[T]:
    return numbered


def _without_flaws(name: str, numbered: Numbered[Pair], journal: Journal) -> Iterator[tuple[int, Pair]]:
    """The pairs that have something to learn; how many have not, and which, goes into the journal."""
    flawed: dict[Flaw, list[int]] = defaultdict(list)
    for number, pair in numbered:
        flaw = pair_flaw(pair)
        if flaw is None:
            yield number, pair
        else:
            flawed[flaw].append(number)
    for flaw, lines in flawed.items():
        said = f"{name}: {were(len(lines), 'pair')} left out, since {FLAWS[flaw]} ({named_rows(lines)})."
        journal.log(said, "warning")


def named_rows(numbers: Sequence[int]) -> str:
    """As in "row 7", "rows 1, 2, 3, 4, 5 and 12 more"."""
    first = ", ".join(f"{number:,}" for number in numbers[:NAMED_ROWS])
    more = f" and {len(numbers) - NAMED_ROWS:,} more" if len(numbers) > NAMED_ROWS else ""
    return f"row{'' if len(numbers) == 1 else 's'} {first}{more}"


class _Distinct:
    """Which prompts were seen in all files of a set, and where."""

    def __init__(self, repeats: bool) -> None:
        self.places: dict[str, str] = {}
        self.repeats = repeats

    def finish(self, name: str, numbered: Numbered[SetPrompt], journal: Journal) -> Iterator[tuple[int, SetPrompt]]:
        """Those that are to be taken. Raises DataError where two have one id of their own."""
        repeated = empty = 0
        for number, prompt in numbered:
            place = f"{name}, row {number:,}"
            first = self.places.setdefault(prompt.prompt_id, place)
            if not prompt.messages:
                empty += 1
                continue
            if first is not place:
                if prompt.prompt_id != content_id(prompt.messages):
                    raise DataError(
                        f"{place}: the prompt_id “{prompt.prompt_id[:60]}” was given before ({first}).",
                        "Each prompt needs an id of its own: rename one of the two, or leave it out.",
                    )
                repeated += 1
            if first is place or self.repeats:
                yield number, prompt
        if repeated and not self.repeats:
            journal.log(f"{name}: {were(repeated, 'row')} left out, since an earlier row has the same prompt.")
        if empty:
            journal.log(f"{name}: {were(empty, 'row')} left out, since nothing is asked before the answer.", "warning")


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of small objects that all stay make the garbage collector search in vain, and reading half as fast."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _hub_rows(
    name: str, convert: Callable[[dict[str, Any]], T], rows: Iterable[dict[str, Any]]
) -> Iterator[tuple[int, T]]:
    for number, row in enumerate(rows, 1):
        try:
            yield number, convert(row)
        except RowError as error:
            raise DataError(f"{name}, row {number:,}: {error.message}", error.hint) from None


def _file_parts(form: _Form[T], reference: Reference, found: ResolvedInput, journal: Journal) -> list[Part[T]]:
    if found.path is None:
        raise InputError(f"{reference} was not found.", "Check the name of the data set.", field=form.field)
    files = data_files(Path(found.path))
    parts: list[Part[T]] = []
    left = reference.rows
    for path in files:
        if left == 0:
            break
        facts = scan(path, progress=_reporter(journal, path.name))
        check_kind(str(reference), facts.kind, form.stage)
        if found.sha256 is not None and len(files) == 1 and facts.sha256 != found.sha256:
            raise DataError(
                f"{reference} is not what it was: {path.name} has changed since it was checked.",
                "A version of a data set never changes; upload the file as a new version.",
            )
        read = facts.rows if left is None else min(left, facts.rows)
        left = None if left is None else left - read
        name = str(reference) if len(files) == 1 else f"{reference}, {path.name}"
        parts.append(_part(form, str(reference), name, path, read_rows(path, form.convert, read), journal))
        journal.artifact(
            "data set", str(reference), file=path.name, sha256=facts.sha256, form=facts.kind, rows=read, bytes=facts.bytes
        )  # fmt: skip
    return parts


def _reporter(journal: Journal, name: str) -> Callable[[int, int], None]:
    throttle = Throttle()

    def report(done: int, total: int) -> None:
        if throttle.ready() or done == total:
            journal.progress(f"reading {name}", done, total, "bytes")

    return report
