"""The journal: what a run did, one JSON object a line, over all its attempts. No torch here.

    {"attempt": 1, "seq": 0, "time": 1700000000.25, "kind": "metrics", "step": 1, "values": {"loss": 9.1}}

`seq` counts from 0 within an attempt. Only lines that end in a newline count. A resumed run truncates
nothing: it ends a torn last line and goes on; where two attempts wrote the same step, the later is shown.
Numbers that JSON does not know are the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from training.errors import DiskFull

Kind = Literal["metrics", "log", "progress", "sample", "artifact", "status"]
KINDS = frozenset(get_args(Kind))
LEVELS = ("info", "warning", "error")

MAX_LINE = 1 << 20  # bytes; a longer line is quarantined by the reader, and never written by the writer
MAX_TEXT = 64 << 10  # characters of one text in a record; the rest is cut, and said to be
MAX_INTEGER = 2**53  # beyond it JavaScript counts in twos
MAX_ATTEMPT = 2**31 - 1  # what a database's integer holds


class Journal:
    """The writer. One process at a time, which holds the run's lock (`RunDir.locked`)."""

    def __init__(self, path: Path, attempt: int, clock: Callable[[], float] = time.time) -> None:
        self.attempt = attempt
        self.seq = 0
        self._clock = clock
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")

    def metrics(self, step: int, **values: float) -> None:
        """Numbers measured at a step, each under the name that its chart carries."""
        self._write("metrics", step=step, values={key: _number(value) for key, value in values.items()})

    def log(self, message: str, level: str = "info", step: int | None = None) -> None:
        """A sentence for the reader of the run's page."""
        self._write("log", step=step, level=level, message=_text(message))

    def progress(self, task: str, done: float, total: float | None, unit: str = "") -> None:
        """How far a task is: `task` is a short phrase ("training", "downloading model.safetensors")."""
        self._write(
            "progress", task=task, done=_number(done), total=None if total is None else _number(total), unit=unit
        )

    def sample(self, step: int, index: int, prompt: str, response: str, ended: bool) -> None:
        """The model's answer to the fixed prompt `index` at a step. `ended`: it stopped by itself."""
        self._write("sample", step=step, index=index, prompt=_text(prompt), response=_text(response), ended=ended)

    def artifact(self, name: str, path: str, **facts: Any) -> None:
        """A thing made (or an input found): `path` is relative to the run directory, or a reference."""
        self._write("artifact", name=name, path=path, facts=facts)

    def status(self, phase: str, **facts: Any) -> None:
        """What the trainer does now: "loading", "tokenizing", "training", "saving", "finished", ..."""
        self._write("status", phase=phase, facts=facts)

    def sync(self) -> None:
        """Make all written lines survive a power cut. Called before each checkpoint is renamed into place."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _write(self, kind: Kind, step: int | None = None, **fields: Any) -> None:
        record: dict[str, Any] = {
            "attempt": self.attempt,
            "seq": self.seq,
            "time": round(self._clock(), 3),
            "kind": kind,
        }
        if step is not None:
            record["step"] = step
        record.update(fields)
        self._append(json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        self.seq += 1

    def _append(self, line: bytes) -> None:
        """One write, so that a reader sees the whole line or a part that it knows for a part."""
        try:
            written = os.write(self._file, line)
            if written < len(line):
                os.write(self._file, line[written:])
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise DiskFull(
                    "The disk is full: the journal could not be written.",
                    "Free some space, then resume: the run goes on from its last checkpoint.",
                ) from error
            raise


def _number(value: float) -> float | int | str:
    if isinstance(value, int):
        return value
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def number(value: float | int | str | None) -> float | None:
    """A journal's number as a float (NaN and infinities included), or None where there is none."""
    return None if value is None else float(value)


def _text(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # lone surrogates become question marks
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT:,} characters cut)"


@dataclass(frozen=True, slots=True)
class Record:
    """A good line. `body`: all fields but attempt, seq, time, kind and step."""

    attempt: int
    seq: int
    time: float
    kind: str
    step: int | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record: kept, counted, and shown with its reason."""

    reason: str
    text: str  # its beginning, made printable


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of a journal, in order, and the offset behind the last of them."""

    lines: list[Record | BadLine]
    end: int  # bytes from the file's beginning


def read_lines(path: Path, offset: int, limit: int = 4 * MAX_LINE) -> Chunk:
    """Read the whole lines that begin at `offset`, about `limit` bytes of them at most.

    A torn last line is held back until its newline comes. A line over MAX_LINE is one BadLine.
    Raises FileNotFoundError.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(max(limit, MAX_LINE + 1))
        end = data.rfind(b"\n") + 1
        if end:
            return Chunk([parse_line(line) for line in data[:end].split(b"\n")[:-1] if line.strip()], offset + end)
        if len(data) <= MAX_LINE:
            return Chunk([], offset)
        return _skip_endless_line(file, data, offset)


def _skip_endless_line(file: Any, data: bytes, offset: int) -> Chunk:
    length = len(data)
    while block := file.read(MAX_LINE):
        newline = block.find(b"\n")
        if newline >= 0:
            bad = BadLine(f"longer than {MAX_LINE:,} bytes", _printable(data))
            return Chunk([bad], offset + length + newline + 1)
        length += len(block)
    return Chunk([], offset)


def parse_line(line: bytes) -> Record | BadLine:
    """Parse one line, without its newline. Never raises."""
    if len(line) > MAX_LINE:
        return BadLine(f"longer than {MAX_LINE:,} bytes", _printable(line))
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadLine(f"not JSON: {error}", _printable(line))
    reason = _complaint(content)
    if reason:
        return BadLine(reason, _printable(line))
    return Record(
        attempt=content.pop("attempt"),
        seq=content.pop("seq"),
        time=float(content.pop("time")),
        kind=content.pop("kind"),
        step=content.pop("step", None),
        body=content,
    )


def _complaint(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "not an object"
    for key, most in (("attempt", MAX_ATTEMPT), ("seq", MAX_INTEGER)):
        if not _is_count(content.get(key), most):
            return f"“{key}” is not a whole number from 0"
    if type(content.get("time")) not in (int, float) or not math.isfinite(content["time"]):
        return "“time” is not a number"
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return f"unknown kind “{str(kind)[:40]}”"
    step = content.get("step")
    if step is not None and not _is_count(step):
        return "“step” is not a whole number from 0"
    if kind == "metrics":
        return _metrics_complaint(step, content.get("values"))
    return None


def _metrics_complaint(step: int | None, values: Any) -> str | None:
    if step is None:
        return "metrics without a step"
    if not isinstance(values, Mapping):
        return "metrics without values"
    for key, value in values.items():
        if type(value) not in (int, float) and value not in ("NaN", "Infinity", "-Infinity"):
            return f"the value of “{key[:40]}” is not a number"
    return None


def _is_count(value: Any, most: int = MAX_INTEGER) -> bool:
    return type(value) is int and 0 <= value <= most


def _printable(line: bytes, most: int = 200) -> str:
    return line[:most].decode("utf-8", "replace").encode("unicode_escape").decode("ascii")[: 2 * most]
