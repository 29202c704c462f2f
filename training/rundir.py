"""Every path of a run directory, and the lock that lets only one process write it. No torch here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict

from training.errors import Failure, Locked


class ResolvedInput(BaseModel):
    """Where one reference of a config was found, by the worker, before the trainer started.

    `path` is None for what the trainer itself must get (`hf:`) or make (`new:`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    path: str | None = None
    weights: str | None = None  # a checkpoint whose weights replace those of the model at `path`
    sha256: str | None = None
    rows: int | None = None
    url: str | None = None  # of an endpoint (`api:`); its key is in the environment alone (training/endpoint.py)


class HeldOut(BaseModel):
    """The prompts that an experiment holds out of all training: where from, how many, and where they are kept.

    `path`: a file that the experiment's runs share, written by the first of them that needs it (training/data/held_out.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str  # a reference; RunFile.inputs says where it was found
    n: int | None = None  # None: all of them
    seed: int = 0
    similarity: float = 0.85  # cosine from which two prompts ask the same; 1: only equal ones
    path: str


class RunFile(BaseModel):
    """`config.json`: all that a trainer is told. Written once an attempt, before any work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: int
    name: str
    experiment: str
    stage: str
    attempt: int
    launched_at: float = 0.0  # the row's created_at: with the id, which run of which database this is
    config: dict[str, object]  # a stage's config as training.config.parse_config takes it
    inputs: dict[str, ResolvedInput] = {}  # by reference text, as written in the config
    shared: str | None = None  # a folder that runs share, of what may be computed again: reference log-probabilities
    held_out: HeldOut | None = None
    prompt_set: str | None = None  # that a respond run answers, or whose answers a judge run judges
    responses: str | None = None  # of a judge run: a file with the answers that are to be judged
    embedder: str = ""  # a reference, or empty for the usual one (training/embed.py)


@dataclass(frozen=True)
class RunDir:
    """The files of one run. Nobody else spells these names."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def env(self) -> Path:
        return self.root / "env.json"

    @property
    def commits(self) -> Path:
        """Which commits of the Hub the run began with."""
        return self.root / "commits.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def error(self) -> Path:
        return self.root / "error.json"

    @property
    def log(self) -> Path:
        """What the trainer printed, tracebacks included."""
        return self.root / "trainer.log"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def process(self) -> Path:
        """Which process trains: pid, start time and boot id, so that no stranger is ever killed."""
        return self.root / "process.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def responses(self) -> Path:
        """What a `respond` run answered: the data file of responses (docs/concepts.md)."""
        return self.outputs / "responses.jsonl"

    @property
    def scores(self) -> Path:
        """What a judge that scores answers one by one gave each: {"prompt_id", "model", "judge", "score"}."""
        return self.outputs / "scores.jsonl"

    @property
    def verdicts(self) -> Path:
        """What a judge that compares said: the data file of verdicts (docs/concepts.md)."""
        return self.outputs / "verdicts.jsonl"

    @property
    def pairs(self) -> Path:
        """What an `augment` run kept: a data file of preferences."""
        return self.outputs / "pairs.jsonl"

    @property
    def remaining(self) -> Path:
        """The rows of an `augment` run's data whose prompts it did not draw, in their own form."""
        return self.outputs / "remaining.jsonl"

    @property
    def candidates(self) -> Path:
        """Every answer that an `augment` run drew, with its measures, and why it was dropped where it was."""
        return self.outputs / "candidates.jsonl"

    @property
    def funnel(self) -> Path:
        """How many prompts and answers each filter of an `augment` run left, and how similar they were."""
        return self.outputs / "funnel.json"

    @property
    def work(self) -> Path:
        """What of a stage's many small works is done (training/worklog.py)."""
        return self.root / "work.jsonl"

    @property
    def given_responses(self) -> Path:
        """The answers that a judge run was given."""
        return self.root / "responses.jsonl"

    @property
    def cache(self) -> Path:
        """Tokens and the like: may be deleted at any time."""
        return self.root / "cache"

    def create(self) -> None:
        """Make the directory, private to its owner."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read_config(self) -> RunFile:
        return RunFile.model_validate_json(self.config.read_bytes())

    def write_config(self, content: RunFile) -> None:
        write_atomically(self.config, content.model_dump_json(indent=2).encode())

    def read_error(self) -> Failure | None:
        """Why the last attempt failed, if it said so."""
        try:
            return Failure.model_validate_json(self.error.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    @contextlib.contextmanager
    def locked(self, wait_seconds: float = 30.0) -> Iterator[None]:
        """Hold the run's lock, or raise Locked. The kernel frees it when the process ends, however it ends."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _flock(descriptor, wait_seconds)
            yield
        finally:
            os.close(descriptor)


def _flock(descriptor: int, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Locked("another process is writing this run directory") from None
            time.sleep(0.05)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old one or the new one, never a part."""
    temporary = temporary_beside(path)
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def temporary_beside(path: Path) -> Path:
    """A name of this writer's own: processes on several machines, or in several containers, may share a pid."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def write_json(path: Path, content: object) -> None:
    """`write_atomically` of indented JSON."""
    write_atomically(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))


def sync_directory(path: Path) -> None:
    """Make a rename inside this directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
