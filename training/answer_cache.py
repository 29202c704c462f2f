"""Answers, kept so that they are made once: they depend on (model, settings, prompt) alone.

A cache is a folder for one model with one way of answering; runs share it. Files are only ever added, whole: any
number of runs may read and write at once, and all of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from training.data.examples import Message
from training.rundir import write_atomically


def prompt_key(messages: Sequence[Message]) -> str:
    """What is asked, to the letter."""
    return hashlib.blake2b(orjson.dumps(list(messages), option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


class AnswerCache:
    """What one model answers in one way. `facts`: all that its answers depend on beside the prompt."""

    def __init__(self, shared: Path, facts: Mapping[str, Any]) -> None:
        name = hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self._folder = shared / "answers" / name

    def read(self) -> dict[str, dict[str, Any]]:
        """Answers by prompt key: {"response", "ended", "tokens"}. What is damaged counts as not there."""
        found: dict[str, dict[str, Any]] = {}
        for file in sorted(self._folder.glob("*.jsonl")):
            try:
                for line in file.read_bytes().splitlines():
                    row = orjson.loads(line)
                    found[str(row.pop("key"))] = {name: row[name] for name in ("response", "ended", "tokens")}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def add(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep answers by prompt key, whole or not at all. Raises OSError."""
        if not answers:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = b"".join(orjson.dumps({"key": key, **answers[key]}) + b"\n" for key in sorted(answers))
        write_atomically(self._folder / f"{hashlib.sha256(content).hexdigest()}.jsonl", content)
