"""Examples and pairs from the references of a config: joined in order, each journalled with where it came from."""

from __future__ import annotations

import contextlib
import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from training.commits import Commits
from training.data.examples import FLAWS, Example, Flaw, Pair, SetPrompt, pair_flaw
from training.data.formats import check_kind, read_rows, scan
from training.data.lines import RowError, data_files
from training.data.normal import content_id
from training.data.rows import as_example, as_pair, as_prompt
from training.errors import DataError, InputError
from training.hub import fetch_dataset
from training.journal import Journal
from training.references import Reference, parse_reference
from training.rundir import ResolvedInput
from training.throttle import Throttle
from training.words import were

NAMED_LINES = 5  # of those that were left out for one reason

T = TypeVar("T", Example, Pair, SetPrompt)
Numbered = Iterable[tuple[int, T]]


@dataclass(frozen=True)
class _Form(Generic[T]):
    """What is to be made of rows. `finish(name, numbered rows, journal)` gives those that are to be trained on."""

    stage: str  # one that takes such rows
    noun: str
    convert: Callable[[dict[str, Any]], T]
    finish: Callable[[str, Numbered[T], Journal], list[T]]
    purpose: str = "to train on"
    field: str | None = "dataset"  # the setting that names them


def load_examples(
    references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Example]:
    """All chats and texts of these data sets, in order. Raises DataError, HubError, InputError.

    `inputs` says where the worker found each reference; `hf:` ones are fetched here, of the commits that
    the run began with.
    """
    return _load(_Form("sft", "examples", as_example, _all), references, inputs, journal, commits)


def load_pairs(
    references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Pair]:
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
    return _load(form, [reference], inputs, journal, commits)


def _load(
    form: _Form[T], references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[T]:
    with _collector_paused():
        return [row for text in references for row in _rows(form, text, inputs, journal, commits)]


def _rows(
    form: _Form[T], text: str, inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[T]:
    reference = parse_reference(text)
    if reference.kind == "hf":
        numbered = islice(_hub_rows(text, form.convert, fetch_dataset(reference, journal, commits)), reference.rows)
        rows = form.finish(text, numbered, journal)
        journal.log(f"{len(rows):,} {form.noun} from {text}.")
    else:
        rows = _file_rows(form, reference, inputs.get(text, ResolvedInput(reference=text)), journal)
    if not rows:
        raise DataError(f"{text} holds no {form.noun} {form.purpose}.", "Choose another data set.", field=form.field)
    return rows


def _all(name: str, numbered: Numbered[Example], journal: Journal) -> list[Example]:
    return [row for _, row in numbered]


def _without_flaws(name: str, numbered: Numbered[Pair], journal: Journal) -> list[Pair]:
    """The pairs that have something to learn; how many have not, and which, goes into the journal."""
    kept: list[Pair] = []
    flawed: dict[Flaw, list[int]] = defaultdict(list)
    for number, pair in numbered:
        flaw = pair_flaw(pair)
        if flaw is None:
            kept.append(pair)
        else:
            flawed[flaw].append(number)
    for flaw, lines in flawed.items():
        first = ", ".join(f"{line:,}" for line in lines[:NAMED_LINES])
        more = f" and {len(lines) - NAMED_LINES:,} more" if len(lines) > NAMED_LINES else ""
        rows = "row" if len(lines) == 1 else "rows"
        said = f"{name}: {were(len(lines), 'pair')} left out, since {FLAWS[flaw]} ({rows} {first}{more})."
        journal.log(said, "warning")
    return kept


class _Distinct:
    """Which prompts were seen in all files of a set, and where."""

    def __init__(self, repeats: bool) -> None:
        self.places: dict[str, str] = {}
        self.repeats = repeats

    def finish(self, name: str, numbered: Numbered[SetPrompt], journal: Journal) -> list[SetPrompt]:
        """Those that are to be taken. Raises DataError where two have one id of their own."""
        kept: list[SetPrompt] = []
        repeated = empty = 0
        for number, prompt in numbered:
            place = f"{name}, row {number:,}"
            if not prompt.messages:
                empty += 1
            elif self.places.setdefault(prompt.prompt_id, place) is place:
                kept.append(prompt)
            elif prompt.prompt_id == content_id(prompt.messages):
                repeated += 1
                kept += [prompt] if self.repeats else []
            else:
                raise DataError(
                    f"{place}: the prompt_id “{prompt.prompt_id[:60]}” was given before ({self.places[prompt.prompt_id]}).",
                    "Each prompt needs an id of its own: rename one of the two, or leave it out.",
                )
        if repeated and not self.repeats:
            journal.log(f"{name}: {were(repeated, 'row')} left out, since an earlier row has the same prompt.")
        if empty:
            journal.log(f"{name}: {were(empty, 'row')} left out, since nothing is asked before the answer.", "warning")
        return kept


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


def _file_rows(form: _Form[T], reference: Reference, found: ResolvedInput, journal: Journal) -> list[T]:
    if found.path is None:
        raise InputError(f"{reference} was not found.", "Check the name of the data set.", field=form.field)
    files = data_files(Path(found.path))
    rows: list[T] = []
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
        rows += form.finish(name, read_rows(path, form.convert, read), journal)
        journal.artifact(
            "data set", str(reference), file=path.name, sha256=facts.sha256, form=facts.kind, rows=read, bytes=facts.bytes
        )  # fmt: skip
    return rows


def _reporter(journal: Journal, name: str) -> Callable[[int, int], None]:
    throttle = Throttle()

    def report(done: int, total: int) -> None:
        if throttle.ready() or done == total:
            journal.progress(f"reading {name}", done, total, "bytes")

    return report
