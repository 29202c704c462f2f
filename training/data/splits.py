"""Which examples are trained on and which are held back for eval: no prompt is on both sides. No torch here."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.formats import Example
from training.errors import InputError


def split(examples: Sequence[Example], eval_fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the examples to train on, and to hold back for eval, both ascending.

    Examples with the same prompt stay together, so the fraction is met as nearly as adding or not adding one group
    allows. The same examples and seed give the same split, and a group's side depends on its text, not its place.
    With a fraction above 0 and two examples at least, one at least is held back. Raises InputError where all
    examples have the same prompt, so that one side would be empty.
    """
    n = len(examples)
    if eval_fraction == 0 or n < 2:
        return np.arange(n), np.arange(0)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[prompt_hash(example, seed)].append(index)
    if len(groups) == 1:
        raise InputError(
            f"All {n:,} examples have the same prompt, so none can be held back for eval.",
            "Set “Held back for eval” to 0, or add other prompts.",
            field="eval_fraction",
        )
    members = [groups[key] for key in sorted(groups)]
    held = [index for group in _choose(members, max(1, round(n * eval_fraction))) for index in group]
    mask = np.zeros(n, np.bool_)
    mask[held] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _choose(groups: list[list[int]], target: int) -> list[list[int]]:
    """Groups, from the first on, with about `target` members together: never none of them, and never all."""
    chosen: list[list[int]] = []
    left: list[list[int]] = []
    missing = target
    for group in groups:
        if len(group) <= missing and len(chosen) < len(groups) - 1:
            chosen.append(group)
            missing -= len(group)
        else:
            left.append(group)
    smallest = min(left, key=len)
    if not chosen or (len(left) > 1 and len(smallest) - missing < missing):
        chosen.append(smallest)
    return chosen


def prompt_hash(example: Example, seed: int = 0) -> bytes:
    """16 bytes that examples share whose prompts differ at most in case and white space.

    The prompt of a chat is all that stands before its last assistant turn; a text is its own prompt.
    """
    digest = hashlib.blake2b(digest_size=16, key=seed.to_bytes(8, "little"))
    for part in _prompt(example):
        digest.update(" ".join(part.casefold().split()).encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.digest()


def _prompt(example: Example) -> list[str]:
    if example.messages is None:
        return [example.text or ""]
    last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
    return [part for message in example.messages[:last] for part in (message["role"], message["content"])]
