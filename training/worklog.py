"""What of many small works is done, kept line by line, so that a kill repeats only what was in flight.

Lines: {"begun": [keys]} before a batch is computed or paid for, {"done": {key: result}} when it is. A torn last line
counts for nothing, nor does one that a power cut left unreadable: what it said is done again. The log stands beside the
run's outputs, which are written from it when all is done.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

DONE = b'{"done"'  # how a line of results begins


class WorkLog:
    """One run's log. One process writes it, from as many threads as it likes.

    `done`: results by key. `interrupted`: keys that an earlier attempt had begun and not done: they are done again.
    """

    def __init__(self, path: Path) -> None:
        self.done: dict[str, Any] = {}
        self._begun: Counter[str] = Counter()
        self._lock = threading.Lock()
        whole = self._read(path)
        self.interrupted = frozenset(key for key in self._begun if key not in self.done)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, whole)  # a torn last line says nothing

    @property
    def repeated(self) -> int:
        """How often a work was begun that had been begun before, over all attempts: computed or paid for again."""
        return sum(count - 1 for count in self._begun.values())

    def begin(self, keys: Collection[str]) -> None:
        """Say what is computed next. Raises DiskFull."""
        self._append({"begun": list(keys)})
        with self._lock:
            self._begun.update(keys)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Keep results, safe from a power cut, all or none of them. Raises DiskFull."""
        self._append({"done": dict(results)}, sync=True)
        with self._lock:
            self.done.update(results)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> WorkLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self, path: Path) -> int:
        """Take what is there. Returns how many bytes of it are whole lines."""
        if not path.exists():
            return 0
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].splitlines():
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                self._take(orjson.loads(line))
        return whole

    def _take(self, record: dict[str, Any]) -> None:
        """Take a line's content, or raise ValueError, TypeError or AttributeError where it is no record."""
        begun, done = list(record.get("begun", ())), dict(record.get("done", {}))
        self._begun.update(begun)
        self.done.update(done)

    def _append(self, record: dict[str, Any], sync: bool = False) -> None:
        from training.files import disk_errors  # which knows torch; who only reads a log need not

        line = orjson.dumps(record) + b"\n"
        with self._lock, disk_errors("what was done"):
            whole = os.fstat(self._file).st_size
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                if sync:
                    os.fsync(self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, whole)  # else the next line would be glued to a part of this one
                raise
