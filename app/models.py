"""The tables, and nothing else. Times are seconds since 1970, UTC. The schema changes by migrations only.

SQLModel tables do not validate: what goes in has been through `training.config` or a form before.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Index, Integer, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

BigInt = BigInteger().with_variant(Integer(), "sqlite")


def json_column(**options: Any) -> Any:
    return Field(sa_column=Column(JSON, nullable=False), **options)


class Experiment(SQLModel, table=True):
    """A question, and the graph of runs that answers it."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    question: str = Field(default="", sa_column=Column(Text, nullable=False))
    spec: dict[str, Any] = json_column(default_factory=dict)  # as submitted, for showing and cloning
    created_at: float


class Run(SQLModel, table=True):
    """One execution of one stage. This row is the truth; messages are hints. States: app/runs/states.py."""

    __table_args__ = (
        UniqueConstraint("experiment_id", "name"),
        Index("ix_run_queue", "state", "priority", "queued_at"),
        {"sqlite_autoincrement": True},  # the id of a deleted run never comes back: its directory and cursors are gone
    )

    id: int | None = Field(default=None, primary_key=True)
    experiment_id: int = Field(foreign_key="experiment.id", index=True)
    name: str = Field(max_length=100)
    stage: str = Field(max_length=20)
    config: dict[str, Any] = json_column()
    tags: list[str] = json_column(default_factory=list)
    notes: str = Field(default="", sa_column=Column(Text, nullable=False))
    created_at: float
    queued_at: float | None = None
    started_at: float | None = None  # of the first attempt since the last retry
    finished_at: float | None = None
    idempotency_key: str | None = Field(default=None, unique=True, max_length=100)

    # who works on it
    state: str = Field(max_length=10)
    desired_state: str | None = Field(default=None, max_length=10)  # "stopped", or nothing
    priority: int = 0
    attempt: int = 0
    beat: int = 0
    claim: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))  # worker, device, process
    fruitless: int = 0  # attempts in a row that died and made no new checkpoint
    fresh: bool = False  # the next attempt starts from nothing: a retry, not a resume
    error: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))  # training.errors.Failure

    # what its journal said; written by the relay, in one transaction with the events
    cursor: int = Field(default=0, sa_column=Column(BigInt, nullable=False))  # bytes of the journal that are shipped
    cursor_check: int = Field(default=0, sa_column=Column(BigInt, nullable=False))  # CRC-32 of the bytes before it
    journal_alarm: str = Field(default="", sa_column=Column(Text, nullable=False))
    last_event: int = Field(default=0, sa_column=Column(BigInt, nullable=False))
    bad_lines: int = 0
    step: int = Field(default=0, sa_column=Column(BigInt, nullable=False))
    total_steps: int | None = Field(default=None, sa_column=Column(BigInt, nullable=True))
    phase: str = Field(default="", max_length=200)
    progress: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))  # the last record
    summary: dict[str, Any] = json_column(default_factory=dict)  # metric -> {"last", "step", "min", "max"}


class RunParent(SQLModel, table=True):
    """`run_id` waits for `parent_id`."""

    __tablename__ = "run_parent"

    run_id: int = Field(sa_column=Column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True))
    parent_id: int = Field(sa_column=Column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True, index=True))


class Event(SQLModel, table=True):
    """A journal line, a change of state, or a line that could not be read; numbered within its run, without gaps.

    `kind`: the journal's, or "state" or "bad_line". `body`: JSON text; of metrics, the values alone.
    """

    __table_args__ = {"sqlite_with_rowid": False}

    run_id: int = Field(sa_column=Column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True))
    number: int = Field(sa_column=Column(BigInt, primary_key=True, autoincrement=False))
    attempt: int
    seq: int | None = Field(default=None, sa_column=Column(BigInt, nullable=True))
    time: float = Field(sa_column=Column(Float, nullable=False))
    kind: str = Field(max_length=10)
    step: int | None = Field(default=None, sa_column=Column(BigInt, nullable=True))
    body: str = Field(sa_column=Column(Text, nullable=False))


class Prompt(SQLModel, table=True):
    """A prompt of a set that an experiment's models answer: `held_out`, `data:<name>@<version>`, or an import's."""

    __table_args__ = (UniqueConstraint("experiment_id", "set_name", "prompt_id"),)

    id: int | None = Field(default=None, primary_key=True)
    experiment_id: int = Field(sa_column=Column(ForeignKey("experiment.id", ondelete="CASCADE"), nullable=False))
    set_name: str = Field(sa_column=Column(Text, nullable=False))
    prompt_id: str = Field(max_length=200)
    messages: list[dict[str, str]] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    category: str | None = Field(default=None, max_length=200)
    reference: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


class Response(SQLModel, table=True):
    """One model's answer to one prompt. `run_id`: the respond run that made it; None where it came from elsewhere."""

    __table_args__ = (UniqueConstraint("prompt_key", "model"),)

    id: int | None = Field(default=None, primary_key=True)
    prompt_key: int = Field(sa_column=Column(ForeignKey("prompt.id", ondelete="CASCADE"), nullable=False))
    model: str = Field(max_length=200)
    run_id: int | None = Field(
        default=None, sa_column=Column(ForeignKey("run.id", ondelete="CASCADE"), nullable=True, index=True)
    )
    text: str = Field(sa_column=Column(Text, nullable=False))
    characters: int  # of the text
    empty: bool  # nothing but spaces
    ended: bool | None = None  # it stopped by itself; None where nobody knows
    tokens: int | None = None
    checkpoint: int | None = Field(default=None, sa_column=Column(BigInt, nullable=True))  # the step it answered at


class Score(SQLModel, table=True):
    """What a judge gave one answer: it compares any two models without judging again."""

    response_id: int = Field(sa_column=Column(ForeignKey("response.id", ondelete="CASCADE"), primary_key=True))
    judge: str = Field(primary_key=True, max_length=200)
    score: float
    run_id: int | None = Field(
        default=None, sa_column=Column(ForeignKey("run.id", ondelete="CASCADE"), nullable=True, index=True)
    )


class Verdict(SQLModel, table=True):
    """What a judge, a person too, said of two models' answers to one prompt. `preference`: 1 = the first is better.

    `run_id`: the judge run; `source`: the SHA-256 of the file that it was imported from.
    """

    id: int | None = Field(default=None, primary_key=True)
    prompt_key: int = Field(sa_column=Column(ForeignKey("prompt.id", ondelete="CASCADE"), nullable=False, index=True))
    model_a: str = Field(max_length=200)
    model_b: str = Field(max_length=200)
    judge: str = Field(max_length=200)
    preference: float
    score_a: float | None = None
    score_b: float | None = None
    reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    run_id: int | None = Field(
        default=None, sa_column=Column(ForeignKey("run.id", ondelete="CASCADE"), nullable=True, index=True)
    )
    source: str | None = Field(default=None, max_length=64)


class Dataset(SQLModel, table=True):
    """One version of a data set. Versions never change; the file lies under its hash."""

    __table_args__ = (UniqueConstraint("name", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=100, index=True)
    version: int
    kind: str = Field(max_length=12)  # training.data.formats.Kind
    sha256: str = Field(max_length=64)
    rows: int = Field(sa_column=Column(BigInt, nullable=False))
    bytes: int = Field(sa_column=Column(BigInt, nullable=False))
    facts: dict[str, Any] = json_column(default_factory=dict)
    origin: str = Field(default="", sa_column=Column(Text, nullable=False))  # a file's name, or the run that made it
    created_at: float


class Worker(SQLModel, table=True):
    """A worker that was seen. For the page only: no decision rests on it."""

    name: str = Field(primary_key=True, max_length=100)
    host: str = Field(max_length=255)
    pid: int
    started_at: float
    seen_at: float
    devices: list[dict[str, Any]] = json_column(default_factory=list)  # name, memory, utilisation, run


class Token(SQLModel, table=True):
    """A secret that lets somebody in; only its SHA-256 is kept. Kinds: api, session, login (used once)."""

    id: int | None = Field(default=None, primary_key=True)
    hash: str = Field(unique=True, max_length=64)
    kind: str = Field(max_length=10)
    role: str = Field(max_length=10)
    name: str = Field(default="", max_length=100)
    created_at: float
    expires_at: float | None = None
    used_at: float | None = None


def metadata() -> Any:
    """All tables' metadata, for Alembic."""
    return SQLModel.metadata
