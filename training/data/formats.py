"""The forms of data files, row by row: texts, chats, preferences, prompts. No torch here: the web side reads this.

    text        {"text": "..."}
    chat        {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    preference  {"prompt": text | messages, "chosen": text | messages, "rejected": text | messages}
    prompts     {"prompt_id": "...", "prompt": text | messages, "category"?: "...", "reference"?: "..."}

A row may have other fields beside these. Where chosen and rejected are messages that repeat the prompt, their
common beginning is the prompt.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from training.data.lines import BadRow, RowError, RowProblem, numbered_lines, parse_row
from training.data.shapes import advice
from training.errors import DataError

Kind = Literal["text", "chat", "preference", "prompts"]

ROLES = frozenset({"system", "user", "assistant", "tool"})
MOST_PROBLEMS = 20  # bad lines that one scan names
MOST_COMPARED = 5_000_000  # rows among which duplicates are counted: 8 bytes each

NOUNS: dict[Kind, str] = {"text": "texts", "chat": "chats", "preference": "preferences", "prompts": "prompts"}


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One chat or one text to train on; exactly one of the two is set."""

    messages: list[Message] | None = None
    text: str | None = None


@dataclass(frozen=True)
class DatasetFacts:
    """What a scan found in a data file."""

    kind: Kind
    rows: int
    bytes: int
    sha256: str
    characters: int  # of all contents
    turns: int  # messages in all rows; 0 for texts
    roles: dict[str, int]  # messages by role
    longest: int  # characters of the longest row
    longest_line: int
    duplicates: int  # rows whose content an earlier row has (among the first MOST_COMPARED)
    empty: int  # texts without a word: skipped in training


@dataclass(frozen=True, slots=True)
class Row:
    """A checked row: its kind, and its content as lists of messages and texts, for counting."""

    kind: Kind
    chats: tuple[list[Message], ...] = ()
    texts: tuple[str, ...] = ()


def scan(path: Path, *, name: str | None = None, progress: Callable[[int, int], None] | None = None) -> DatasetFacts:
    """Read a whole file once and check every row, in bounded memory. `progress(bytes done, bytes in all)`.

    `name`: what messages call the file, where that is not its name on disk.

    Raises DataError where the file is something else or holds no rows, BadRow with the first MOST_PROBLEMS bad
    lines.
    """
    digest, done = hashlib.sha256(), 0

    def watch(block: bytes) -> None:
        nonlocal done
        digest.update(block)
        done += len(block)
        if progress is not None:
            progress(done, size)

    name = name or path.name
    size = path.stat().st_size if os.access(path, os.R_OK) else 0
    tally, problems = _Tally(), []
    for number, line in numbered_lines(path, watch, name):
        try:
            row = check_row(parse_row(line))
            tally.add(number, row)
        except RowError as error:
            problems.append(RowProblem(number, error.message, error.hint))
            if len(problems) > MOST_PROBLEMS:
                break
    if problems:
        raise BadRow(name, problems[:MOST_PROBLEMS], more=len(problems) > MOST_PROBLEMS)
    return tally.facts(name, done, digest.hexdigest())


def check_kind(name: str, kind: Kind) -> None:
    """Raise DataError where rows of this kind are nothing to train a language model on."""
    if kind not in {"chat", "text"}:
        raise DataError(
            f"{name} holds {NOUNS[kind]}; this stage trains on chats or texts.",
            'Choose a data set of {"messages": [...]} or {"text": "..."} rows.',
        )


class _Tally:
    """Counts over the rows of a file."""

    def __init__(self) -> None:
        self.kind: Kind | None = None
        self.first = self.rows = self.characters = self.longest = self.longest_line = self.empty = 0
        self.roles: Counter[str] = Counter()
        self.hashes = array("q")

    def add(self, number: int, row: Row) -> None:
        if row.kind != self.kind:
            if self.kind is not None:
                raise RowError(
                    f"the row is one of the {NOUNS[row.kind]}, while line {self.first:,} is one of the {NOUNS[self.kind]}.",
                    "Keep each kind in a file of its own.",
                )
            self.kind, self.first = row.kind, number
        contents = list(row.texts)
        for chat in row.chats:
            for message in chat:
                self.roles[message["role"]] += 1
                contents.append(message["content"])
        length = sum(map(len, contents))
        self.rows += 1
        self.characters += length
        self.empty += row.kind == "text" and (not length or contents[0].isspace())
        if length > self.longest:
            self.longest, self.longest_line = length, number
        if len(self.hashes) < MOST_COMPARED:
            self.hashes.append(hash(tuple(contents)))

    def facts(self, name: str, size: int, sha256: str) -> DatasetFacts:
        if self.kind is None:
            raise DataError(f"{name} holds only blank lines.", "A data set is JSON Lines: one object a line.")
        if self.empty == self.rows:
            raise DataError(f"{name} holds only empty texts.", "Each row's “text” is what the model learns.")
        return DatasetFacts(
            kind=self.kind,
            rows=self.rows,
            bytes=size,
            sha256=sha256,
            characters=self.characters,
            turns=self.roles.total(),
            roles=dict(self.roles),
            longest=self.longest,
            longest_line=self.longest_line,
            duplicates=len(self.hashes) - len(np.unique(np.frombuffer(self.hashes, np.int64))),
            empty=self.empty,
        )


def read_examples(path: Path, rows: int | None = None) -> Iterator[Example]:
    """The chats or texts of a file, the first `rows` of them at most. Raises DataError, BadRow."""
    for number, line in islice(numbered_lines(path), rows):
        try:
            yield as_example(parse_row(line))
        except RowError as error:
            raise BadRow(path.name, [RowProblem(number, error.message, error.hint)]) from None


def as_example(row: dict[str, Any]) -> Example:
    """A chat's or a text's row as an example. Raises RowError, also for rows of other kinds."""
    checked = check_row(row)
    if checked.kind == "chat":
        messages = [Message(role=message["role"], content=message["content"]) for message in checked.chats[0]]
        return Example(messages=messages)
    if checked.kind == "text":
        return Example(text=checked.texts[0])
    raise RowError(
        f"the row is one of the {NOUNS[checked.kind]}; this stage trains on chats or texts.",
        'Choose a data set of {"messages": [...]} or {"text": "..."} rows.',
    )


def check_row(row: dict[str, Any]) -> Row:
    """Say which kind a row is, and check that it is a right one. Raises RowError."""
    if "chosen" in row and "rejected" in row:
        return _check_preference(row)
    if "messages" in row:
        messages = _check_messages(row["messages"], "messages")
        _check_answer(messages)
        return Row("chat", chats=(messages,))
    if "text" in row and "prompt" not in row:
        return Row("text", texts=(_check_text(row["text"], "text"),))
    if "prompt" in row and "prompt_id" in row and "response" not in row:
        return _check_prompt(row)
    raise advice(row)


def _check_text(text: Any, name: str) -> str:
    if type(text) is not str:
        way = "Join its parts into one text." if type(text) is list else "Write a text in quotes, or leave the row out."
        raise RowError(f"“{name}” is {_type_name(text)}, not a text.", way)
    if "\0" in text:
        raise RowError(f"“{name}” holds a NUL character (\\u0000), which is no text.", "Leave the character out.")
    return text


def _check_messages(messages: Any, name: str) -> list[Message]:
    if type(messages) is not list:
        raise RowError(
            f"“{name}” is {_type_name(messages)}, not a list of messages.",
            'Write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].',
        )
    if not messages:
        raise RowError(f"“{name}” is an empty list.", "A chat has a user's and an assistant's message at least.")
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise RowError(
                f"“{name}”[{index}] is {_type_name(message)}, not an object.", "A message has a role and a content."
            )
        role = message.get("role")
        if type(role) is not str or role not in ROLES:
            raise _wrong_role(message, f"“{name}”[{index}]")
        content = message.get("content")
        if type(content) is not str or "\0" in content:
            _check_text(content, f"{name}[{index}].content")
        if len(message) > 2 and message.get("tool_calls"):
            raise RowError(f"“{name}”[{index}] calls tools, which cannot be trained on yet.", "Leave the row out.")
    return messages


def _wrong_role(message: dict[str, Any], place: str) -> RowError:
    known = "The roles are system, user, assistant and tool."
    if "role" not in message and "from" in message:
        return RowError(f"{place} has “from” and “value” for “role” and “content”.", known)
    if "role" not in message:
        return RowError(f"{place} has no role.", known)
    role = message["role"]
    if not isinstance(role, str):
        return RowError(f"the role of {place} is {_type_name(role)}, not a text.", known)
    meant = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
    right = meant.get(role.lower(), role.lower() if role.lower() in ROLES else "")
    return RowError(f"the role of {place} is “{role[:30]}”.", f"{known} Write “{right}”." if right else known)


def _check_answer(messages: list[Message]) -> None:
    """There is an assistant's turn with a word in it: something to learn."""
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError(
            "the row has no assistant turn, so there is nothing to learn.", "Add the answer, or leave the row out."
        )
    if not any(answer and not answer.isspace() for answer in answers):
        raise RowError("the row has only empty assistant turns.", "Add the answer, or leave the row out.")


def _check_preference(row: dict[str, Any]) -> Row:
    prompt, chosen, rejected = split_preference(row)
    return Row("preference", chats=(prompt, chosen, rejected))


def split_preference(row: dict[str, Any]) -> tuple[list[Message], list[Message], list[Message]]:
    """A preference row as (prompt, chosen, rejected): messages each, the answers without the prompt.

    Raises RowError where there is no prompt, or an answer has no assistant turn.
    """
    given = row.get("prompt")
    prompt = [] if given is None else _as_messages(given, "prompt", "user")
    chosen, rejected = (_as_messages(row[side], side, "assistant") for side in ("chosen", "rejected"))
    common = _common_beginning(chosen, rejected)
    if common and common[0]["role"] != "assistant":
        prompt, chosen, rejected = common, chosen[len(common) :], rejected[len(common) :]
    if not prompt:
        raise RowError(
            "the row has no prompt: neither the field, nor a common beginning of chosen and rejected.",
            'Add "prompt", or begin both answers with the same messages.',
        )
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        if any(message["role"] == "user" for message in answer[:1]) or answer[-1]["role"] != "assistant":
            raise RowError(f"“{side}” does not answer the prompt: it must be the assistant's.", "Correct the roles.")
    return prompt, chosen, rejected


def _as_messages(value: Any, name: str, role: str) -> list[Message]:
    if type(value) is list:
        return _check_messages(value, name)
    return [Message(role=role, content=_check_text(value, name))]


def _common_beginning(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    """The messages that both begin with; the last message of either is its answer, never a part of the prompt."""
    length, most = 0, min(len(chosen), len(rejected)) - 1
    while length < most and all(chosen[length][key] == rejected[length][key] for key in ("role", "content")):
        length += 1
    return chosen[:length]


def _check_prompt(row: dict[str, Any]) -> Row:
    if type(row["prompt_id"]) not in (str, int):
        raise RowError(f"“prompt_id” is {_type_name(row['prompt_id'])}, not a text.", "Give each prompt a short name.")
    for name in ("category", "reference"):
        if row.get(name) is not None:
            _check_text(row[name], name)
    messages = _as_messages(row["prompt"], "prompt", "user")
    if messages[-1]["role"] == "assistant":
        raise RowError("“prompt” ends with an assistant turn.", "A prompt ends where the model is to answer.")
    if not messages[-1]["content"].strip():
        raise RowError("“prompt” is empty.", "Write the prompt, or leave the row out.")
    return Row("prompts", chats=(messages,))


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null or missing"}
    return names.get(type(value), "a number")
