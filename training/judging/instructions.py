"""What a judge of pairs is told: a text with three places, and what is put into them as data. No torch here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from training.data.examples import Message
from training.errors import InputError

PLACES = ("prompt", "answer_1", "answer_2")
PLACE = re.compile(r"\{(prompt|answer_1|answer_2)\}")
MOST_CHARACTERS = 200_000  # of the instructions
MOST_SHOWN = 40_000  # characters of one answer, or of the prompt: about what 10,000 tokens hold


class Instructions:
    """A text for a judge of pairs; `sha256` tells it from others."""

    def __init__(self, text: str, name: str) -> None:
        """Raises InputError where it lacks a place."""
        missing = [f"{{{place}}}" for place in PLACES if f"{{{place}}}" not in text]
        if missing:
            raise InputError(
                f"{name} lacks {' and '.join(missing)}: the judge would not see what it is to judge.",
                "Write {prompt}, {answer_1} and {answer_2} where the prompt and the two answers are to stand.",
                field="instructions",
            )
        self._text = text
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()

    def fill(self, prompt: Sequence[Message], answer_1: str, answer_2: str) -> str:
        """The whole request. Each of the three stands between two marks that no one can know who wrote them."""
        values = {"prompt": as_text(prompt), "answer_1": answer_1, "answer_2": answer_2}
        mark = _mark(self._text, *values.values())
        names = {"prompt": "PROMPT", "answer_1": "ANSWER 1", "answer_2": "ANSWER 2"}

        def fenced(found: re.Match[str]) -> str:
            place = found[1]
            return f"<<<BEGIN {names[place]} {mark}>>>\n{_cut(values[place])}\n<<<END {names[place]} {mark}>>>"

        return PLACE.sub(fenced, self._text)


def own_instructions() -> Instructions:
    """Preflab's."""
    return Instructions(resources.files("training.judging").joinpath("pairwise.txt").read_text(), "pairwise.txt")


def read_instructions(path: Path) -> Instructions:
    """Somebody's own. Raises InputError."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path} could not be read: {error.strerror}.", "Check the path and who may read it.", field="instructions"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8.", "Save it as UTF-8 text.", field="instructions") from None
    if len(text) > MOST_CHARACTERS:
        raise InputError(
            f"{path} has {len(text):,} characters, too many for instructions.", "Shorten it.", field="instructions"
        )
    return Instructions(text, path.name)


def as_text(messages: Sequence[Message]) -> str:
    """A prompt for reading: its content alone where it is one question, else turn by turn with who speaks."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


def is_cut(text: str) -> bool:
    """Whether a judge sees only the beginning of such a text."""
    return len(text) > MOST_SHOWN


def _cut(text: str) -> str:
    if not is_cut(text):
        return text
    return f"{text[:MOST_SHOWN]}\n[{len(text) - MOST_SHOWN:,} more characters are left out here]"


def _mark(*texts: str) -> str:
    """A mark that is in none of the texts, and the same for the same texts. It depends on all of them, so whoever wrote
    one of them cannot have known it."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    mark = digest[:12]
    while any(mark in text for text in texts):
        digest = hashlib.sha256(digest.encode()).hexdigest()
        mark = digest[:12]
    return mark
