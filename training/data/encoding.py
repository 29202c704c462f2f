"""Examples as tokens: which ids, and which of them are scored. No torch here.

A token is scored where its characters overlap what the model must learn (`training.data.chat`). The first token of
an example is never scored: nothing predicts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from training.data.chat import ChatTemplate, ScoredText
from training.data.examples import Example
from training.data.lines import RowError
from training.data.saving import Saved
from training.errors import DataError

CHUNK = 512  # examples that are tokenized at once


@dataclass(frozen=True)
class TokenSet(Saved):
    """n examples, end to end. Example i has the tokens offsets[i] to offsets[i + 1]."""

    ids: NDArray[np.int32]  # (tokens,)
    scored: NDArray[np.bool_]  # (tokens,): this token is a target
    offsets: NDArray[np.int64]  # (n + 1,)
    source: NDArray[np.int64]  # (n,): the example's index in what was encoded
    truncated: int = 0  # examples that were cut at max_length
    tokens_cut: int = 0  # tokens lost by that
    empty: int = 0  # examples left out, since nothing scored remained

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.ids[start:end], self.scored[start:end]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, (n,)."""
        return np.diff(self.offsets)


def encode_examples(
    examples: Sequence[Example],
    tokenizer: Any,
    max_length: int,
    loss_on: Literal["assistant", "all"] = "assistant",
    progress: Callable[[int, int], None] | None = None,
) -> TokenSet:
    """Render, tokenize and mask examples. `progress(examples done, examples in all)`.

    `tokenizer`: as `training.tokenizer.load_tokenizer` gives it. Chats: loss on the assistant's turns and their
    ends, or on all tokens. Texts: all tokens, with the end-of-text token behind them. What is longer than
    `max_length` tokens is cut at the end. Raises DataError, which names the example.
    """
    encoder = _Encoder(tokenizer, max_length, loss_on)
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        encoder.add(chunk, start)
        if progress is not None:
            progress(start + len(chunk), len(examples))
    return encoder.tokens()


class _Encoder:
    """Tokenizes chunks of examples, and collects what comes out."""

    def __init__(self, tokenizer: Any, max_length: int, loss_on: str) -> None:
        self.backend = plain_backend(tokenizer)
        self.template = chat_template(tokenizer)
        self.eos: int | None = tokenizer.eos_token_id
        self.max_length = max_length
        self.all = loss_on == "all"
        self.ids: list[NDArray[np.int32]] = []
        self.scored: list[NDArray[np.bool_]] = []
        self.source: list[int] = []
        self.truncated = self.tokens_cut = self.empty = 0

    def add(self, chunk: Sequence[Example], first: int) -> None:
        """Encode a chunk; `first`: its first example's index in the whole."""
        chats = [self._score(example, first + i) for i, example in enumerate(chunk) if example.messages is not None]
        texts = [example.text for example in chunk if example.text is not None]
        coded_chats = iter(self.backend.encode_batch([chat.text for chat in chats], add_special_tokens=False))
        coded_texts = iter(self.backend.encode_batch(texts))
        scores = iter(chats)
        for index, example in enumerate(chunk, first):
            if example.text is not None:
                self._keep(index, *self._text(next(coded_texts)))
            else:
                coded = next(coded_chats)
                self._keep(index, coded.ids, token_mask(coded, next(scores).spans, self.all))

    def tokens(self) -> TokenSet:
        """All that was added."""
        lengths = np.fromiter(map(len, self.ids), np.int64, len(self.ids))
        return TokenSet(
            ids=np.concatenate([np.empty(0, np.int32), *self.ids]),
            scored=np.concatenate([np.empty(0, np.bool_), *self.scored]),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            source=np.array(self.source, np.int64),
            truncated=self.truncated,
            tokens_cut=self.tokens_cut,
            empty=self.empty,
        )

    def _score(self, example: Example, index: int) -> ScoredText:
        try:
            return self.template.score(example.messages or [])
        except RowError as error:
            raise DataError(f"Example {index + 1:,}: {error.message}", error.hint) from None

    def _text(self, coded: Encoding) -> tuple[list[int], NDArray[np.bool_]]:
        ids = coded.ids
        if self.eos is not None and ids[-1:] != [self.eos]:
            ids.append(self.eos)
        return ids, np.ones(len(ids), np.bool_)

    def _keep(self, index: int, ids: list[int], scored: NDArray[np.bool_]) -> None:
        cut = len(ids) - self.max_length
        scored = scored[: self.max_length]
        scored[:1] = False
        if cut > 0:
            self.truncated += 1
            self.tokens_cut += cut
        if not scored.any():
            self.empty += 1
            return
        self.ids.append(np.array(ids[: self.max_length], np.int32))
        self.scored.append(scored)
        self.source.append(index)


def chat_template(tokenizer: Any) -> ChatTemplate:
    """The tokenizer's chat template, compiled. Raises DataError where it is no template."""
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    try:
        return ChatTemplate(tokenizer.chat_template, tokenizer.special_tokens_map, specials)
    except RowError as error:
        raise DataError(error.message, error.hint) from None


def plain_backend(tokenizer: Any) -> Tokenizer:
    """The tokenizer's own backend, with any truncation and padding that it carries turned off."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def token_mask(coded: Encoding, spans: Sequence[tuple[int, int]], every: bool = False) -> NDArray[np.bool_]:
    """Which tokens overlap the [start, end) character spans, (tokens,)."""
    if every:
        return np.ones(len(coded), np.bool_)
    mask = np.zeros(len(coded), np.bool_)
    for start, end in spans:
        first = next(filter(_is_token, map(coded.char_to_token, range(start, end))), None)
        last = next(filter(_is_token, map(coded.char_to_token, range(end - 1, start - 1, -1))), None)
        if first is None or last is None:
            continue  # the tokenizer writes nothing for these characters
        # Some tokenizers leave white space out of their offsets, so that its tokens stand at its end, empty;
        # and a character of several bytes may be several tokens.
        while (chars := coded.token_to_chars(first - 1) if first else None) is not None and chars[1] > start:
            first -= 1
        while (chars := coded.token_to_chars(last + 1)) is not None and (chars[0] < end or chars[1] <= end):
            last += 1
        mask[first : last + 1] = True
    return mask


def _is_token(index: int | None) -> bool:
    return index is not None
