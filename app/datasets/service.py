"""Taking data sets in, whole or not at all, and deleting them.

A file arrives in a folder of its own, is read once row by row, and only then moved to the name that its content
gives it and made known by a row. What is left of a broken import is no data set, and is swept away a day later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from sqlmodel import Session, col, func, select

from app.datasets import queries
from app.db import Database, one_at_a_time
from app.disk import check_space
from app.errors import Conflict, Invalid, NotFound, Unavailable
from app.models import Dataset
from app.runs.inputs import dataset_path
from app.settings import Settings
from app.winrates.rows import judge_name
from training.data.formats import DatasetFacts, scan
from training.data.lines import BadRow, RowError, refuse_foreign
from training.errors import DataError
from training.references import NAME
from training.rundir import sync_directory

INCOMING = ".incoming-"
DATASETS = "datasets"  # what only one transaction at a time changes: rows together with their files
DAY = 86_400
BLOCK = 1 << 20  # bytes copied at once


class Arrival:
    """A file that is arriving. `write` blocks to it, then `finish`, then `take_in`."""

    def __init__(self, settings: Settings, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._settings = settings
        self._file = file
        self._unchecked = 0

    def write(self, block: bytes) -> None:
        """Raises Unavailable where the disk is full, or nearly."""
        self._unchecked += len(block)
        if self._unchecked > 64 * BLOCK:
            self._unchecked = 0
            check_space(self._settings)
        left = memoryview(block)
        with _disk_errors():
            while left:  # a disk that is nearly full takes a part, and refuses only the next
                left = left[self._file.write(left) :]

    def finish(self) -> None:
        """All has come: make it last."""
        with _disk_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


@contextlib.contextmanager
def arrival(settings: Settings, filename: str, expected: int = 0) -> Iterator[Arrival]:
    """A place for a file of about `expected` bytes; what is still there at the end is removed. Raises Unavailable."""
    check_space(settings, expected)
    _sweep(settings)
    folder = settings.datasets_folder / f"{INCOMING}{secrets.token_hex(8)}"
    with _disk_errors():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    try:
        path = folder / _harmless(filename)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _disk_errors(), os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            yield Arrival(settings, path, file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take_in(
    database: Database,
    settings: Settings,
    path: Path,
    name: str,
    origin: str,
    progress: Callable[[int, int], None] | None = None,
    labelled_by: Sequence[str] = (),
) -> Dataset:
    """Check every row of a file that has arrived, move it to its place and make its row.

    The same name and content again give the same version again. `labelled_by`: the judges that said which answer is
    better, kept in `facts`; named with a version that is there, they replace those named before. Raises Invalid, with
    `fields` by line.
    """
    judges = check_labellers(labelled_by)
    facts = checked(path, progress)
    with database.write() as session:
        dataset, _ = place(session, settings, path, facts, name, origin)
        if judges:
            dataset.facts = {**dataset.facts, "labelled_by": judges}
        return dataset


def place(
    session: Session, settings: Settings, path: Path, facts: DatasetFacts, name: str, origin: str
) -> tuple[Dataset, bool]:
    """Make the row of a file that was checked, and move the file to its place. Returns whether the row is a new one.

    In the transaction of `session`, which may be tried again: the file has been moved then.
    """
    target = dataset_path(settings, facts.sha256)
    one_at_a_time(session, DATASETS)
    dataset, new = _add(session, facts, name, origin)
    if path.exists() or not target.exists():
        path.replace(target)  # last: a row never names a file that is not there, and `delete` waits its turn
        sync_directory(target.parent)
    return dataset, new


def _add(session: Session, facts: DatasetFacts, name: str, origin: str) -> tuple[Dataset, bool]:
    known = session.exec(select(Dataset).where(Dataset.name == name, Dataset.sha256 == facts.sha256)).first()
    if known is not None:
        return known, False
    newest = session.exec(select(func.max(Dataset.version)).where(Dataset.name == name)).one()
    rest = {key: value for key, value in asdict(facts).items() if key not in {"kind", "rows", "bytes", "sha256"}}
    dataset = Dataset(
        name=name,
        version=(newest or 0) + 1,
        kind=facts.kind,
        sha256=facts.sha256,
        rows=facts.rows,
        bytes=facts.bytes,
        facts=rest,
        origin=origin[:500],
        created_at=time.time(),
    )
    session.add(dataset)
    session.flush()
    return dataset, True


def checked(path: Path, progress: Callable[[int, int], None] | None = None) -> DatasetFacts:
    """What a scan found. Raises Invalid: `fields` names each bad line, "line 12", or "file"."""
    with _as_invalid():
        return scan(path, progress=progress)


@contextlib.contextmanager
def _as_invalid() -> Iterator[None]:
    try:
        yield
    except BadRow as error:
        fields = {f"line {problem.line}": f"{problem.message} {problem.hint}".strip() for problem in error.problems}
        raise Invalid(error.failure.message, error.failure.hint, fields=fields) from None
    except DataError as error:
        raise Invalid(error.failure.message, error.failure.hint, fields={"file": error.failure.message}) from None


def import_file(
    database: Database, settings: Settings, file: Path, name: str, labelled_by: Sequence[str] = ()
) -> Dataset:
    """Copy a file of this machine and take it in. Raises NotFound, Invalid or Unavailable."""
    check_name(name)
    check_labellers(labelled_by)
    with _opened(file) as source:
        with _as_invalid():
            refuse_foreign(source.peek(), file.name)  # before gigabytes are copied
        return _copied(database, settings, file, name, source, labelled_by)


def _copied(
    database: Database, settings: Settings, file: Path, name: str, source: BinaryIO, labelled_by: Sequence[str]
) -> Dataset:
    with arrival(settings, file.name, os.fstat(source.fileno()).st_size) as coming:
        while block := source.read(BLOCK):
            coming.write(block)
        coming.finish()
        return take_in(database, settings, coming.path, name, origin=file.name, labelled_by=labelled_by)


def _opened(file: Path) -> BufferedReader:
    try:
        if file.exists() and not file.is_file():  # opening a pipe would wait for ever
            raise Invalid(f"{file} is no plain file.", "Name a JSON Lines file.")
        return file.open("rb")
    except FileNotFoundError:
        raise NotFound(f"There is no file {file}.", "Check the name.") from None
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}.", "Check the file and who may read it.") from None


def delete(database: Database, settings: Settings, name: str, version: int) -> None:
    """Delete one version, and its file where no other has the same content. Raises NotFound or Conflict."""
    with database.write() as session:
        one_at_a_time(session, DATASETS)
        dataset = queries.get(session, name, version)
        users = queries.used_by(session, dataset)
        if users:
            names = ", ".join(f"{owner}/{run.name}" for run, owner in users[:5])
            raise Conflict(
                f"{len(users)} runs were made from this data set ({names}).", "Delete them first, or keep it."
            )
        session.delete(dataset)
    with database.write() as session:  # the row is gone for good; only now may its file go
        one_at_a_time(session, DATASETS)
        if session.exec(select(col(Dataset.id)).where(Dataset.sha256 == dataset.sha256)).first() is None:
            dataset_path(settings, dataset.sha256).unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Raises Invalid."""
    if not NAME.fullmatch(name):
        sentence = "Letters, digits, dots, dashes and underscores, 100 at most."
        raise Invalid(f"“{name[:100]}” cannot be a data set's name.", sentence, fields={"name": sentence})


def check_labellers(judges: Sequence[str]) -> list[str]:
    """Judges' names, each once, in order. Raises Invalid."""
    try:
        return sorted({judge_name(judge, "labelled_by") for judge in judges})
    except RowError as error:
        raise Invalid(error.message, error.hint, fields={"labelled_by": error.hint}) from None


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise Unavailable(
                "The disk is full: the file was not taken in.", "Free some space, then try again."
            ) from None
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise Unavailable(
                "The folder of the data sets cannot be written.", "Check who owns PREFLAB_HOME and its folders."
            ) from None
        raise


def _harmless(filename: str) -> str:
    """A name that names only a file in its folder: it is what messages call the file."""
    name = "".join(character for character in Path(filename).name if character.isprintable())
    name = name.encode()[:200].decode(errors="ignore")  # file systems take 255 bytes
    return name if name.strip(".") else "data.jsonl"


def _sweep(settings: Settings) -> None:
    """Remove what imports that were killed left behind."""
    for folder in settings.datasets_folder.glob(f"{INCOMING}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < time.time() - DAY:
                shutil.rmtree(folder, ignore_errors=True)
