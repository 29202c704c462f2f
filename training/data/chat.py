"""Chats as text, and which of its characters the model must learn to write. No torch here.

The template decides the text; what is scored is found in the text itself, so any template will do. Each assistant
turn's content is rendered between two marks (noncharacters of Unicode, which no text holds) and once without;
where the two renderings agree but for the marks, the marks say where the content stands. To that are added

- before it, all that the template writes after its own generation prompt (Qwen3's empty thinking block);
- behind it, the special token that ends the turn, but not what follows that (ChatML's line break).

Where a template has `{% generation %}` blocks, they say what is scored. An assistant turn without a word in it is
not scored: it would teach the model to say nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from training.data.examples import Message
from training.data.lines import RowError

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # noncharacters: "intended for process-internal use" (Unicode 23.7)
MARKS = re.compile(f"[{OPEN}{CLOSE}]")
THINKING_END = "</think>"


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A rendered chat, and the [start, end) character spans that the model must learn, in order."""

    text: str
    spans: list[tuple[int, int]]


class ChatTemplate:
    """A compiled chat template with its tokenizer's special tokens.

    `tokens`: what templates call bos_token, eos_token, ...; `specials`: every special token of the vocabulary.
    """

    def __init__(self, template: str, tokens: dict[str, Any], specials: Sequence[str]) -> None:
        environment = _environment()
        try:
            self._template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise RowError(f"The chat template cannot be read: {error}.", "It must be a Jinja template.") from None
        self._tokens = tokens
        self._has_blocks = re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None
        self._eos = str(tokens.get("eos_token") or "")
        ends = sorted({*specials, self._eos} - {""}, key=len, reverse=True)
        self._end = re.compile(r"\s*(?:" + "|".join(map(re.escape, ends)) + ")") if ends else re.compile(r"(?!)")
        self.header = self._generation_prompt()

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The chat's text. Raises RowError where the template refuses the chat."""
        return MARKS.sub("", self._render(messages, add_generation_prompt))

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )
        except jinja2.TemplateError as error:
            raise RowError(
                f"the model's chat template refuses it: {str(error).rstrip('.')}.",
                "Change the chat, or take a model whose template allows it.",
            ) from None
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise RowError(f"the model's chat template fails on it: {error}.", "The template has a fault.") from None

    def score(self, messages: Sequence[Message], begin: int = 0) -> ScoredText:
        """The chat's text and what the model learns of it: its turns from message `begin` on. Raises RowError."""
        for message in messages:
            if MARKS.search(message["content"]):
                raise RowError("the row holds U+FDD0 or U+FDD1, which are no characters.", "Leave them out.")
        if self._has_blocks:
            text, blocks = _unmark(self._render(messages))
            blocks = blocks[self._count_blocks(messages[:begin]) :]
            return ScoredText(text, [(start, self._block_end(text, start, end)) for start, end in blocks])
        text = self._render(messages)
        contents = self._contents(text, messages, begin)
        return self._extend(text, contents, messages[-1]["role"] == "assistant")

    def turn_end(self) -> str:
        """The special token that ends an assistant's turn, or the empty text where there is none."""
        try:
            scored = self.score([Message(role="user", content="a"), Message(role="assistant", content="b")])
        except RowError:  # the template wants more than a question and an answer
            return ""
        start, end = scored.spans[-1]
        match = re.search(rf"({self._end.pattern})\Z", scored.text[start:end])
        return match.group().strip() if match else ""

    def _generation_prompt(self) -> str:
        """What the template writes before an answer, where it only adds it to the end."""
        ask = [Message(role="user", content="a")]
        try:
            without, with_prompt = self.render(ask), self.render(ask, add_generation_prompt=True)
        except RowError:  # the template wants more than a question
            return ""
        header = with_prompt.removeprefix(without) if with_prompt.startswith(without) else ""
        return header if header.strip() else ""

    def _count_blocks(self, messages: Sequence[Message]) -> int:
        """How many {% generation %} blocks the template writes for these messages."""
        if not any(message["role"] == "assistant" for message in messages):
            return 0
        return len(_unmark(self._render(messages))[1])

    def _contents(self, text: str, messages: Sequence[Message], begin: int) -> list[tuple[int, int]]:
        """Where the words of the assistant's turns from `begin` on stand in the text."""
        scored = [index >= begin and _is_scored(message) for index, message in enumerate(messages)]
        for mark in (_mark_whole, _mark_words, _mark_answer):
            marked = self._render(
                [
                    {**message, "content": mark(message["content"])} if wanted else message
                    for message, wanted in zip(messages, scored, strict=True)
                ]
            )
            unmarked, spans = _unmark(marked)
            if unmarked == text and len(spans) == sum(scored):
                return spans
        raise RowError(
            "the model's chat template rewrites the assistant's turns, so what is to be learnt cannot be found.",
            "Mark the assistant's turns in the template with {% generation %} ... {% endgeneration %}.",
        )

    def _extend(self, text: str, contents: list[tuple[int, int]], ends_with_answer: bool) -> ScoredText:
        """The contents' spans, widened to what the model writes from the header to the end of the turn."""
        spans, before = [], 0
        for start, end in contents:
            header = text.rfind(self.header, before, start) if self.header else -1
            match = self._end.match(text, end)
            spans.append((start if header < 0 else header + len(self.header), match.end() if match else end))
            before = spans[-1][1]
        if spans and ends_with_answer and spans[-1][1] == contents[-1][1] and not text[before:].strip():
            # The template ends a chat with nothing: the model would never learn to stop.
            text = text[:before] + self._eos
            spans[-1] = (spans[-1][0], len(text))
        return ScoredText(text, spans)

    def _block_end(self, text: str, start: int, end: int) -> int:
        """The end of a {% generation %} block, moved to the end of the special token that ends the turn."""
        words = text[start:end].rstrip()
        if re.search(rf"(?:{self._end.pattern})\Z", words):
            return start + len(words)
        match = self._end.match(text, end)
        return match.end() if match else end


def _is_scored(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message["content"].strip())


def _mark_whole(content: str) -> str:
    return f"{OPEN}{content}{CLOSE}"


def _mark_words(content: str) -> str:
    """For templates that strip the content."""
    words = content.strip()
    start = content.index(words)
    return f"{content[:start]}{OPEN}{words}{CLOSE}{content[start + len(words) :]}"


def _mark_answer(content: str) -> str:
    """For templates that take the thinking off, or write it in another way."""
    thinking, end, answer = content.rpartition(THINKING_END)
    return thinking + end + _mark_words(answer)


def _unmark(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without marks, and the spans that stood between an opening and a closing one."""
    pieces, spans, length, start = [], [], 0, -1
    position = 0
    for mark in MARKS.finditer(marked):
        pieces.append(marked[position : mark.start()])
        length += len(pieces[-1])
        position = mark.end()
        if mark.group() == OPEN:
            start = length
        elif start >= 0:
            spans.append((start, length))
            start = -1
    pieces.append(marked[position:])
    return "".join(pieces), spans


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`: what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that chat templates are written for (transformers' own, in what templates use)."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return environment
