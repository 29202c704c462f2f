"""Pairs of answers to one prompt, as tokens. No torch here.

A pair lies as [prompt | chosen | rejected]: the prompt once, since both answers go on from it. The prompt is what both
token sequences have in common before the first token that is scored in either; so nothing depends on where a
tokenizer merges the end of a prompt with the beginning of an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.chat import ChatTemplate, ScoredText
from training.data.encoding import CHUNK, TokenSet, chat_template, plain_backend, token_mask
from training.data.examples import Pair
from training.data.lines import RowError
from training.data.saving import Saved
from training.errors import DataError

SHOWN_CHARACTERS = 60  # of the prompt of a pair that cannot be used


@dataclass(frozen=True)
class PairSet(Saved):
    """n pairs, end to end; the three parts of pair i begin at offsets[3 i], offsets[3 i + 1], offsets[3 i + 2].

    Every prompt has a token at least, and every answer one that is scored.
    """

    ids: NDArray[np.int32]  # (tokens,)
    scored: NDArray[np.bool_]  # (tokens,): of a chosen or rejected answer, and a target
    offsets: NDArray[np.int64]  # (3 n + 1,)
    source: NDArray[np.int64]  # (n,): the pair's index in what was encoded
    truncated: int = 0  # pairs of which an answer was cut at max_length
    tokens_cut: int = 0  # tokens lost by that
    too_long: int = 0  # pairs left out: their prompt leaves no room for an answer

    def __len__(self) -> int:
        return len(self.source)

    def parts(self, index: int) -> tuple[slice, slice, slice]:
        """Where the prompt, the chosen and the rejected answer of a pair lie in `ids` and `scored`."""
        a, b, c, d = self.offsets[3 * index : 3 * index + 4].tolist()
        return slice(a, b), slice(b, c), slice(c, d)

    @property
    def part_lengths(self) -> NDArray[np.int64]:
        """Tokens of prompt, chosen and rejected, (n, 3)."""
        return np.diff(self.offsets).reshape(-1, 3)

    @property
    def scored_lengths(self) -> NDArray[np.int64]:
        """Scored tokens of chosen and rejected, (n, 2)."""
        totals = np.concatenate([[0], np.cumsum(self.scored)])
        return np.diff(totals[self.offsets]).reshape(-1, 3)[:, 1:]

    def key(self, index: int) -> bytes:
        """16 bytes that two pairs share only where all tokens and their parts are the same."""
        a, b, c, d = self.offsets[3 * index : 3 * index + 4].tolist()
        digest = hashlib.blake2b(np.array([b - a, c - a], np.int64).tobytes(), digest_size=16)
        digest.update(self.ids[a:d].tobytes())
        digest.update(self.scored[a:d].tobytes())
        return digest.digest()

    def as_sequences(self) -> TokenSet:
        """2 n sequences, prompt and answer each: the chosen one of pair i at 2 i, the rejected one at 2 i + 1."""
        places = np.arange(len(self.ids))
        starts = self.offsets.tolist()
        rows: list[NDArray[np.int64]] = []
        for a, b, c, d in zip(starts[:-1:3], starts[1::3], starts[2::3], starts[3::3], strict=True):
            rows += [places[a:c], places[a:b], places[c:d]]
        order = np.concatenate([np.empty(0, np.int64), *rows])
        prompt, chosen, rejected = self.part_lengths.T
        lengths = np.stack([prompt + chosen, prompt + rejected], axis=1).reshape(-1)
        return TokenSet(
            ids=self.ids[order],
            scored=self.scored[order],
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            source=np.repeat(self.source, 2),
        )


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: Any,
    max_length: int,
    progress: Callable[[int, int], None] | None = None,
    which: Sequence[int] | None = None,
) -> PairSet:
    """Render, tokenize and lay out pairs. `progress(pairs done, pairs in all)`.

    `tokenizer`: as `training.tokenizer.load_tokenizer` gives it. `which`: the indices of those to encode, all where
    none are given. Every assistant turn of an answer is scored with its end, and none of the prompt. Prompt and
    answer together are cut at `max_length` tokens at the end. Raises DataError, which names the pair.
    """
    which = range(len(pairs)) if which is None else which
    encoder = _PairEncoder(tokenizer, max_length)
    for start in range(0, len(which), CHUNK):
        chunk = which[start : start + CHUNK]
        encoder.add([(int(index), pairs[index]) for index in chunk])
        if progress is not None:
            progress(start + len(chunk), len(which))
    return encoder.pairs()


@dataclass(frozen=True, slots=True)
class _Answered:
    """A prompt and one answer to it, as tokens, T of them after the cut."""

    ids: NDArray[np.int32]  # (T,)
    scored: NDArray[np.bool_]  # (T,)
    cut: int  # tokens lost at the end

    @property
    def begin(self) -> int:
        """The first scored token; T where there is none."""
        return int(self.scored.argmax()) if self.scored.any() else len(self.ids)


class _PairEncoder:
    """Tokenizes chunks of pairs, and collects what comes out."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.backend = plain_backend(tokenizer)
        self.template = chat_template(tokenizer)
        self.max_length = max_length
        self.ids: list[NDArray[np.int32]] = []
        self.scored: list[NDArray[np.bool_]] = []
        self.source: list[int] = []
        self.truncated = self.tokens_cut = self.too_long = 0

    def add(self, chunk: Sequence[tuple[int, Pair]]) -> None:
        """Encode a chunk of pairs, each with its index in the whole."""
        rendered = [text for index, pair in chunk for text in _render(self.template, pair, index)]
        coded = self.backend.encode_batch([text.text for text in rendered], add_special_tokens=False)
        answered = (
            self._cut(each.ids, token_mask(each, text.spans)) for each, text in zip(coded, rendered, strict=True)
        )
        for (index, pair), chosen, rejected in zip(chunk, answered, answered, strict=True):
            self._keep(index, pair, chosen, rejected)

    def pairs(self) -> PairSet:
        """All that was added."""
        lengths = np.fromiter(map(len, self.ids), np.int64, len(self.ids))
        return PairSet(
            ids=np.concatenate([np.empty(0, np.int32), *self.ids]),
            scored=np.concatenate([np.empty(0, np.bool_), *self.scored]),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            source=np.array(self.source, np.int64),
            truncated=self.truncated,
            tokens_cut=self.tokens_cut,
            too_long=self.too_long,
        )

    def _cut(self, ids: list[int], scored: NDArray[np.bool_]) -> _Answered:
        scored = scored[: self.max_length]
        scored[:1] = False  # nothing predicts the first token
        return _Answered(np.array(ids[: self.max_length], np.int32), scored, max(0, len(ids) - self.max_length))

    def _keep(self, index: int, pair: Pair, chosen: _Answered, rejected: _Answered) -> None:
        if not (chosen.scored.any() and rejected.scored.any()):
            self.too_long += 1
            return
        shared = min(_common_beginning(chosen.ids, rejected.ids), chosen.begin, rejected.begin)
        if not shared:
            raise DataError(
                f"{_name(index, pair)}: the answers begin at the first token, so nothing is left of the prompt.",
                "The chat template must write something before the first answer, such as a token that begins a turn.",
            )
        cut = chosen.cut + rejected.cut
        self.truncated += cut > 0
        self.tokens_cut += cut
        self.ids += [chosen.ids[:shared], chosen.ids[shared:], rejected.ids[shared:]]
        self.scored += [chosen.scored[:shared], chosen.scored[shared:], rejected.scored[shared:]]
        self.source.append(index)


def _render(template: ChatTemplate, pair: Pair, index: int) -> tuple[ScoredText, ScoredText]:
    """Both answers behind the prompt, with what is scored of them."""
    try:
        chosen, rejected = (
            template.score([*pair.prompt, *answer], len(pair.prompt)) for answer in (pair.chosen, pair.rejected)
        )
    except RowError as error:
        raise DataError(f"{_name(index, pair)}: {error.message}", error.hint) from None
    return chosen, rejected


def _name(index: int, pair: Pair) -> str:
    prompt = " ".join(pair.prompt[-1]["content"].split()) if pair.prompt else ""
    return f"Pair {index + 1:,} (“{prompt[:SHOWN_CHARACTERS]}{'…' if len(prompt) > SHOWN_CHARACTERS else ''}”)"


def _common_beginning(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length
