"""When two prompts are the same text: but for case, width, spaces and punctuation. No torch here.

Signs that carry meaning stay: `C`, `C++` and `C#` are three languages, 3 + 4, 3 - 4 and 3.4 three numbers.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from training.data.examples import Message

KEPT = frozenset("*/%&#@\\")  # of Unicode's punctuation: operators and names rather than pauses
NUMBER_SIGN = re.compile(
    r"(?<=\d)[.,:](?=\d)|(?<=\d)\s*[-\u2010-\u2013\u2212]\s*(?=\d)|(?<!\w)[-\u2010-\u2013\u2212](?=\d)"
)
"""A point, comma or colon between digits; a minus between two numbers, or before one."""
SIGNS = {".": "\ue000", ",": "\ue001", ":": "\ue002", "-": "\ue003"}  # what stands for them meanwhile
BACK = str.maketrans({stand_in: sign for sign, stand_in in SIGNS.items()})


def normal(text: str) -> str:
    """The text's words and meaningful signs, one space between, in one case (NFKC, casefold).

    A text without any is itself, its spaces folded.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    words = _without_pauses(text).split()
    return " ".join(words or text.split())


def _without_pauses(text: str) -> str:
    if any(map(str.isdigit, text)):
        text = NUMBER_SIGN.sub(_stand_in, text)
    return text.translate(_PAUSES).translate(BACK)


def _stand_in(found: re.Match[str]) -> str:
    sign = found[0]
    if sign in ".,:":
        return SIGNS[sign]
    between = found.start() and found.string[found.start() - 1].isdigit()
    return f" {SIGNS['-']} " if between else f" {SIGNS['-']}"


class _Pauses(dict[int, int | str | None]):
    """What becomes of each character: punctuation and control characters a space, invisible ones nothing."""

    def __missing__(self, code: int) -> int | str | None:
        character = chr(code)
        category = unicodedata.category(character)
        found: int | str | None = code
        if (category[0] == "P" and character not in KEPT) or category == "Cc":
            found = " " if character not in "'\u2019" else None
        elif category == "Cf":
            found = None
        self[code] = found
        return found


_PAUSES = _Pauses()


def turns(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """Each message's role and normal text."""
    return tuple((message["role"], normal(message["content"])) for message in messages)


def digest(messages: Sequence[Message]) -> bytes:
    """SHA-256 that messages share which are the same text, each by the same role."""
    found = hashlib.sha256()
    for role, text in turns(messages):
        found.update(f"{role}\0{text}\0".encode("utf-8", "surrogatepass"))
    return found.digest()


def content_id(messages: Sequence[Message]) -> str:
    """The name of a prompt that its data set gives none: 12 hex digits of its content's hash."""
    return digest(messages).hex()[:12]
