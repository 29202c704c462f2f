"""Examples from the references of a config: joined in order, each journalled with where it came from."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from training.commits import Commits
from training.data.formats import Example, as_example, check_kind, read_examples, scan
from training.data.lines import RowError, data_files
from training.errors import DataError, InputError
from training.hub import fetch_dataset
from training.journal import Journal
from training.references import Reference, parse_reference
from training.rundir import ResolvedInput
from training.throttle import Throttle


def load_examples(
    references: list[str], inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits
) -> list[Example]:
    """All chats and texts of these data sets, in order. Raises DataError, HubError, InputError.

    `inputs` says where the worker found each reference; `hf:` ones are fetched here, of the commits that
    the run began with.
    """
    with _collector_paused():
        return [example for text in references for example in _examples(text, inputs, journal, commits)]


def _examples(text: str, inputs: Mapping[str, ResolvedInput], journal: Journal, commits: Commits) -> list[Example]:
    reference = parse_reference(text)
    if reference.kind == "hf":
        examples = list(islice(_hub_examples(text, fetch_dataset(reference, journal, commits)), reference.rows))
        journal.log(f"{len(examples):,} examples from {text}.")
    else:
        examples = _file_examples(reference, inputs.get(text, ResolvedInput(reference=text)), journal)
    if not examples:
        raise DataError(f"{text} holds no examples.", "Choose a data set with rows.", field="dataset")
    return examples


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


def _hub_examples(name: str, rows: Iterable[dict[str, Any]]) -> Iterator[Example]:
    for number, row in enumerate(rows, 1):
        try:
            yield as_example(row)
        except RowError as error:
            raise DataError(f"{name}, row {number:,}: {error.message}", error.hint) from None


def _file_examples(reference: Reference, found: ResolvedInput, journal: Journal) -> list[Example]:
    if found.path is None:
        raise InputError(f"{reference} was not found.", "Check the name of the data set.", field="dataset")
    files = data_files(Path(found.path))
    examples: list[Example] = []
    for path in files:
        left = None if reference.rows is None else reference.rows - len(examples)
        if left == 0:
            break
        facts = scan(path, progress=_reporter(journal, path.name))
        check_kind(str(reference), facts.kind)
        if found.sha256 is not None and len(files) == 1 and facts.sha256 != found.sha256:
            raise DataError(
                f"{reference} is not what it was: {path.name} has changed since it was checked.",
                "A version of a data set never changes; upload the file as a new version.",
            )
        part = list(read_examples(path, left))
        examples += part
        journal.artifact(
            "data set", str(reference), file=path.name, sha256=facts.sha256, form=facts.kind, rows=len(part), bytes=facts.bytes
        )  # fmt: skip
    return examples


def _reporter(journal: Journal, name: str) -> Callable[[int, int], None]:
    throttle = Throttle()

    def report(done: int, total: int) -> None:
        if throttle.ready() or done == total:
            journal.progress(f"reading {name}", done, total, "bytes")

    return report
