"""Which examples or pairs are trained on and which are held back for eval: no prompt is on both sides. No torch here."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Example, Pair
from training.errors import InputError


def split(
    prompts: Sequence[Sequence[str]], eval_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the examples or pairs to train on, and to hold back for eval, both ascending; by their prompts.

    Those with the same prompt stay together, so the fraction is met as nearly as adding or not adding one group
    allows. The same prompts and seed give the same split, and a group's side depends on its text, not its place.
    With a fraction above 0 and two examples at least, one at least is held back. Raises InputError where all
    have the same prompt, so that one side would be empty.
    """
    n = len(prompts)
    if eval_fraction == 0 or n < 2:
        return np.arange(n), np.arange(0)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[prompt_hash(prompt, seed)].append(index)
    if len(groups) == 1:
        raise InputError(
            f"All {n:,} rows have the same prompt, so none can be held back for eval.",
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


def prompt_hash(prompt: Sequence[str], seed: int = 0) -> bytes:
    """16 bytes that prompts share which differ at most in case and white space."""
    digest = hashlib.blake2b(digest_size=16, key=seed.to_bytes(8, "little"))
    for part in prompt:
        digest.update(" ".join(part.casefold().split()).encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.digest()


def prompt_of(row: Example | Pair) -> list[str]:
    """What is answered: the roles and contents of a pair's prompt, or of a chat up to its last assistant turn.

    A text is its own prompt.
    """
    if isinstance(row, Pair):
        turns = row.prompt
    elif row.messages is None:
        return [row.text or ""]
    else:
        last = max(i for i, message in enumerate(row.messages) if message["role"] == "assistant")
        turns = row.messages[:last]
    return [part for message in turns for part in (message["role"], message["content"])]
