"""Answers, kept so that they are made once: they depend on (model, settings, prompt) alone.

A cache is a folder for one model with one way of answering; runs share it. Files are only ever added, whole, under the
hash of their content, so that a damaged one is known for one: any number of runs may read and write at once, and all
of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from training.data.examples import Message
from training.rundir import write_atomically

KEPT = ("response", "ended", "tokens")
FORM = 1  # a higher one leaves what is kept behind


def digest(content: Any) -> str:
    """A hash of anything that JSON can hold."""
    return hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def prompt_key(messages: Sequence[Message]) -> str:
    """What is asked, to the letter."""
    return digest(list(messages))


class AnswerCache:
    """What one model answers in one way. `facts`: all that its answers depend on beside the prompt."""

    def __init__(self, shared: Path, facts: Mapping[str, Any]) -> None:
        self._folder = shared / "answers" / digest([FORM, dict(facts)])

    def read(self) -> dict[str, dict[str, Any]]:
        """Answers by prompt key: {"response", "ended", "tokens"}. What is damaged counts as not there."""
        found: dict[str, dict[str, Any]] = {}
        for file in sorted(self._folder.glob("*.jsonl")):
            try:
                content = file.read_bytes()
                if file.stem != _hash(content):
                    continue
                rows = [orjson.loads(line) for line in content.splitlines()]
                found |= {row["key"]: {name: row[name] for name in KEPT} for row in rows}
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def add(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep answers by prompt key, whole or not at all. Raises OSError."""
        if not answers:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = [{"key": key, **{name: answers[key][name] for name in KEPT}} for key in sorted(answers)]
        content = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        write_atomically(self._folder / f"{_hash(content)}.jsonl", content)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
