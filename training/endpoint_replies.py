"""What a server of OpenAI's form said: an answer, a reason to ask again, or a no. Pure; its words are never trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

MOST_WORDS = 300  # characters of a server's message that are repeated
MOST_WAIT = 120.0  # seconds: of a Retry-After, what is followed
CUT = frozenset({"length", "max_tokens", "model_length", "content_filter"})
"""`finish_reason` of an answer that did not end by itself, in OpenAI's and others' words."""

Clean = Callable[[str], str]  # takes secrets out of what a server said


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `ended`: it stopped by itself; `tokens`: of the answer, where the server counts them."""

    text: str
    ended: bool
    tokens: int | None = None


class AskAgain(Exception):
    """No answer, but the next try may bring one. The message says what happened; `wait`: seconds that were asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):
    """A no that another try does not change. `option`: the setting of the request that it is about, if it says so."""

    def __init__(self, reason: str, hint: str, option: str = "") -> None:
        super().__init__(reason)
        self.hint = hint
        self.option = option


def read_reply(status: int, headers: Mapping[str, str], body: bytes, clean: Clean) -> Reply:
    """The answer in a whole response. Raises AskAgain, Refused."""
    content = _json(body)
    if status == HTTPStatus.OK:
        return _answer(content, clean)
    reason = f"it answered {status}{_phrase(status)}{_message(content, body, clean)}"
    if status in {408, 409, 425, 429} or status >= 500:
        raise AskAgain(reason, _retry_after(headers.get("retry-after", "")))
    if 300 <= status < 400:
        place = _cut(clean(headers.get("location", "")))
        raise Refused(
            f"it sent the request on to “{place}”, and a key and prompts are not sent on",
            "Name the address in the settings at which it answers itself.",
        )
    raise Refused(reason, _what_to_do(status), _option(content))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _answer(content: Any, clean: Clean) -> Reply:
    """OpenAI's chat completion. NVIDIA documents `message` as a list of one message for its reward models."""
    try:
        choice = content["choices"][0]
        message = choice["message"]
        words = _words((message[0] if isinstance(message, list) else message)["content"])
        usage = content.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        said = _message(content, b"", clean)
        raise AskAgain(f"it answered 200, but not with a chat completion in JSON{said}") from None
    counted = tokens if type(tokens) is int and tokens >= 0 else None
    text = words.encode("utf-8", "replace").decode().replace("\0", "")  # neither is in a data file, nor in a database
    return Reply(text, reason not in CUT, counted)


def _words(content: Any) -> str:
    """A message's text: a string, its parts, or none at all (a refusal)."""
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError
    return content


def _phrase(status: int) -> str:
    return f" ({HTTPStatus(status).phrase})" if status in set(HTTPStatus) else ""


def _message(content: Any, body: bytes, clean: Clean) -> str:
    """: “what the server said”, or nothing."""
    said: Any = content
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and key in said:
            said = said[key]
    if content is None:
        said = body[: 64 << 10].decode("utf-8", "replace")
    text = said if isinstance(said, str) else json.dumps(said) if said else ""
    words = _cut(clean(text))
    return f": “{words}”" if words and not words.startswith("<") else ""


def _cut(text: str) -> str:
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]}…"


def _option(content: Any) -> str:
    """The setting that a server does not take, as OpenAI's own says it."""
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict) or error.get("code") not in {"unsupported_parameter", "unsupported_value"}:
        return ""
    return str(error.get("param") or "")


def _retry_after(value: str) -> float | None:
    """Seconds, of a number or a date, MOST_WAIT at most."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MOST_WAIT)


def _what_to_do(status: int) -> str:
    if status == 404:
        return "Check the model's name, and the endpoint's address in the settings: it usually ends in /v1."
    if status == 402:
        return "Check the account's balance."
    return "Check the model's name, its longest context, and what the server's own log says."
