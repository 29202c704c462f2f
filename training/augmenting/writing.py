"""How a writer is asked for a new prompt: a text file, in one of two forms. No torch here.

    Write a new prompt like this one: {prompt}                 a request, which the model answers in its chat form
    Question: {prompt}\\nQuestion: {new_prompt}\\n               a text, which the model goes on with at {new_prompt}

The second is for models that follow no instructions: base models, and small ones whose training had loss on the prompts
too. What stands behind {new_prompt} is where the new prompt ends, if the model has not ended before. A model behind an
endpoint answers chats alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from training.data.examples import Message
from training.errors import InputError
from training.judging.instructions import as_text

PLACE, NEW = "{prompt}", "{new_prompt}"
LABEL = re.compile(r"\A(?:here is (?:a|the) new prompt|(?:the )?(?:new )?prompt)\s*:\s*", re.IGNORECASE)
QUOTES = {'"': '"', "“": "”", "«": "»", "'": "'"}
MOST_CHARACTERS = 100_000  # of the file


class Writing:
    """The instructions, read. `sha256` tells them from others."""

    def __init__(self, text: str, name: str) -> None:
        """Raises InputError where a place is missing, or stands twice."""
        self.goes_on = NEW in text
        self._before, _, behind = text.partition(NEW)
        self._behind = behind.rstrip("\n") or behind  # editors end a file with a line break
        if PLACE not in self._before:
            where = f", before {NEW}" if self.goes_on else ""
            raise InputError(
                f"{name} lacks {PLACE}{where}: the writer would not see the prompt that it is to write from.",
                f"Write {PLACE} where that prompt is to stand.",
                field="writing",
            )
        if NEW in behind or PLACE in behind:
            raise InputError(
                f"In {name}, {NEW} is not the last place: what stands behind it is where the new prompt ends.",
                f"Write {NEW} once, and nothing but the end of a prompt behind it.",
                field="writing",
            )
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()

    def ask(self, prompt: Sequence[Message]) -> str:
        """What the writer gets for a prompt: a user's message, or the text to go on with."""
        return self._before.replace(PLACE, as_text(prompt))

    def read(self, text: str, ended: bool) -> tuple[str, bool]:
        """The new prompt in what the writer wrote, and whether it ended there."""
        if self.goes_on:
            found, end, _ = text.partition(self._behind) if self._behind else (text, "", "")
            return found.strip(), ended or bool(end)
        return _bare(text), ended

    def new_prompt(self, prompt: Sequence[Message], text: str) -> list[Message]:
        """The messages of a new prompt: those of the system stay as they were."""
        system = [message for message in prompt if message["role"] == "system"]
        return [*system, Message(role="user", content=text)]


def _bare(text: str) -> str:
    """Without a label before it, or quotes around all of it."""
    text = LABEL.sub("", text.strip())
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def own_writing() -> Writing:
    """Preflab's."""
    return Writing(resources.files("training.augmenting").joinpath("write_prompt.txt").read_text(), "write_prompt.txt")


def read_writing(path: Path) -> Writing:
    """Somebody's own. Raises InputError."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path} could not be read: {error.strerror}.", "Check the path and who may read it.", field="writing"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8.", "Save it as UTF-8 text.", field="writing") from None
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{path} has {len(text):,} characters, too many.", "Shorten it.", field="writing")
    return Writing(text, path.name)


def clean(text: str) -> str:
    """A model's text without what no data file holds: NUL, halves of surrogate pairs, and U+FDD0 and U+FDD1."""
    text = text.encode("utf-8", "replace").decode()
    return re.sub("[\0\ufdd0\ufdd1]", "", text)
