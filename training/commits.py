"""Which commit of the Hub a run's references mean: the one of its first attempt, for as long as the run lives.

A branch moves on. A run that was killed goes on with the very model and data that it began with; a retry from nothing
removes the file, and takes what is there then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from training.errors import InputError
from training.references import Reference
from training.rundir import write_json


class Commits:
    """Commits by kind ("model", "dataset") and reference without its options. `path` None: kept in memory alone."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known = _read(path) if path is not None else {}

    def find(self, kind: str, reference: Reference) -> str | None:
        """The commit that this reference was resolved to, if it was."""
        return self._known.get(kind, {}).get(_name(reference))

    def resolve(self, kind: str, reference: Reference, ask: Callable[[], str]) -> str:
        """The commit kept for this reference, else what `ask` says, kept from now on."""
        found = self.find(kind, reference)
        if found is None:
            found = self._known.setdefault(kind, {})[_name(reference)] = ask()
            if self._path is not None:
                write_json(self._path, self._known)
        return found


def _name(reference: Reference) -> str:
    """Two splits of a data set are of one commit."""
    return str(replace(reference, options={}))


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        content: dict[str, dict[str, str]] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise InputError(f"{path.name} cannot be read.", "Retry the run from nothing.") from None
    return content
