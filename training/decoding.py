"""Tokens one after another, for many prompts side by side, with keys and values kept.

What it does: rows leave the batch as they end, so that nothing is computed for them any more; the keys and values grow
in room that is there, not by a copy for each token; logits of the last place alone.
What it does not: models that keep other things than transformers' DynamicCache does. `can_decode` tries a model;
for the others there is transformers' own `generate` (training/generate.py).

Shapes: R rows, L tokens of the longest prompt, V words of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from training.attention import embedding_rows
from training.device import Device, is_out_of_memory
from training.errors import ModelError

Choose = Callable[[Tensor, Sequence[int], int], Tensor]
"""(logits (R, V) in fp32, which rows of the batch they are, how many tokens each has already) to tokens (R,)."""

STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 8}
"""Tokens between two looks at which rows have ended: a GPU would stand still for each."""
SAME = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Mean difference of logits, in their standard deviations, that rounding makes; a padding that is looked at makes more."""


class RoomyLayer(DynamicLayer):
    """The keys and values of one layer, (R, heads, tokens, size), in room for a quarter more than there are."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._key_room = self._value_room = key_states[..., :0, :]
        self._count = 0

    def update(self, key_states: Tensor, value_states: Tensor, *others: Any, **named: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, self._count = self._count, self._count + key_states.shape[-2]
        if self._count > self._key_room.shape[-2]:
            room = self._count + max(64, self._count // 4)
            self._key_room = _wider(self._key_room, key_states, begin, room)
            self._value_room = _wider(self._value_room, value_states, begin, room)
        self._key_room[..., begin : self._count, :] = key_states
        self._value_room[..., begin : self._count, :] = value_states
        return self._show()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._key_room, self._value_room = self._key_room[beam_idx], self._value_room[beam_idx]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys = self._key_room[..., : self._count, :]
        self.values = self._value_room[..., : self._count, :]
        return self.keys, self.values


def _wider(old: Tensor, like: Tensor, count: int, room: int) -> Tensor:
    new = like.new_empty((*like.shape[:-2], room, like.shape[-1]))
    if count:
        new[..., :count, :] = old[..., :count, :]
    return new


class Rows:
    """Prompts that a model goes on with, side by side, padded at the left. Runs under torch.no_grad, in eval mode."""

    def __init__(self, model: Any, device: Device, prompts: Sequence[Sequence[int]], filler: int) -> None:
        self._model, self._device = model, device
        lengths = [len(prompt) for prompt in prompts]
        # On a CPU one place more, so that there is a mask always: without one, transformers takes a way of PyTorch's
        # for grouped heads that is two to three times slower there in bf16.
        longest = max(lengths) + (not device.is_gpu)
        ids = np.full((len(prompts), longest), filler, np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        self._ids, self._mask = (torch.from_numpy(each).to(device.torch) for each in (ids, mask))
        self._next = torch.tensor(lengths, device=device.torch)[:, None]  # (R, 1): places of the tokens to come
        self._cache = DynamicCache(config=model.config)
        roomy = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in self._cache.layers]
        self._cache.layers[:] = roomy
        takes = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in takes
        self._options: dict[str, Any] = {"use_cache": True}
        if "logits_to_keep" in takes:
            self._options["logits_to_keep"] = 1

    def read(self) -> Tensor:
        """Read the prompts. Returns the logits of what comes next, (R, V), fp32."""
        return self._forward(self._ids, (self._mask.cumsum(1) - 1).clamp(min=0))

    def add(self, tokens: Tensor) -> Tensor:
        """Read one token more a row, (R,). Returns as `read` does."""
        self._mask = pad(self._mask, (0, 1), value=1)
        places, self._next = self._next, self._next + 1
        return self._forward(tokens[:, None], places)

    def keep(self, rows: Sequence[int]) -> None:
        """Leave the others out from now on."""
        kept: Any = torch.tensor(rows, device=self._device.torch)
        self._mask, self._next = self._mask[kept], self._next[kept]
        self._cache.reorder_cache(kept)

    def _forward(self, ids: Tensor, places: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": self._mask, "past_key_values": self._cache, **self._options}
        if self._takes_positions:
            inputs["position_ids"] = places
        logits: Tensor = self._model(**inputs).logits
        return logits[:, -1].float()


@torch.no_grad()
def decode(
    model: Any,
    device: Device,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    ends: Collection[int],
    filler: int,
    choose: Choose,
    pause: Callable[[int], None] = lambda ended: None,
) -> list[list[int]]:
    """Go on with prompts (token ids), each until one of its `ends`, which stands last, or until it has its limit, 1 at least.

    `pause` is called between two tokens, with how many have ended; what it raises goes through. Raises ModelError where the logits are no numbers.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    present = list(range(len(prompts)))
    rows = Rows(model, device, prompts, filler)
    logits = rows.read()
    check_numbers(logits)
    written = 0
    while True:
        fresh: list[Tensor] = []
        steps = min(STEPS_BETWEEN_LOOKS[device.torch.type], min(limits[each] for each in present) - written)
        for step in range(steps):
            pause(len(prompts) - len(present))
            fresh.append(choose(logits, present, written + step))
            if step + 1 < steps:
                logits = rows.add(fresh[-1])
        written += steps
        for each, tokens in zip(present, torch.stack(fresh, 1).tolist(), strict=True):
            answers[each] += tokens
        left = [row for row, each in enumerate(present) if not _is_over(answers[each], steps, limits[each], ends)]
        if not left:
            return [whole(answer, limit, ends) for answer, limit in zip(answers, limits, strict=True)]
        last = fresh[-1]
        if len(left) < len(present):
            present = [present[row] for row in left]
            rows.keep(left)
            last = last[left]
        logits = rows.add(last)


def whole(ids: list[int], limit: int, ends: Collection[int]) -> list[int]:
    """An answer up to its end, which it holds, or its limit."""
    stop = next((place for place, token in enumerate(ids[:limit]) if token in ends), limit)
    return ids[: stop + 1][:limit]


def _is_over(ids: Sequence[int], fresh: int, limit: int, ends: Collection[int]) -> bool:
    return len(ids) >= limit or any(token in ends for token in ids[-fresh:])


def check_numbers(logits: Tensor) -> None:
    """Raise ModelError where logits are no numbers."""
    if bool(torch.isnan(logits).any()):
        raise ModelError(
            "The model gives no numbers for what comes next.",
            "Its weights are broken, or too large for this precision: try precision fp32.",
            field="model",
        )


@torch.no_grad()
def can_decode(model: Any, device: Device) -> bool:
    """Whether `decode` gives what the model itself does. The model is on its device, in eval mode.

    What an architecture says of itself is not enough: prompts of different lengths are read together and gone on with,
    after one has left, and what comes out must be what the model makes of each alone and at once.
    """
    prompts = trial_prompts(model)
    try:
        rows = Rows(model, device, prompts, filler=0)
        if not alike(model, rows.read(), [alone(model, device, prompt) for prompt in prompts]):
            return False
        rows.keep([1, 2])
        for token in (3, 5):
            logits = rows.add(torch.full((2,), token, device=device.torch))
            prompts = [[*prompt, token] for prompt in prompts]
        return alike(model, logits, [alone(model, device, prompt) for prompt in prompts[1:]])
    except (TypeError, ValueError, LookupError, AttributeError, NotImplementedError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return False


def trial_prompts(model: Any) -> list[list[int]]:
    """Prompts so different in length that padding which is looked at, or counted, shows."""
    draw = np.random.default_rng(0)
    most = min(64, embedding_rows(model))
    return [draw.integers(0, most, length).tolist() for length in (24, 11, 3)]


def alone(model: Any, device: Device, prompt: Sequence[int]) -> Tensor:
    """The logits of what follows one prompt, (V,), fp32, with nothing kept and nothing beside it."""
    ids = torch.tensor([prompt], device=device.torch)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, -1].float()


def alike(model: Any, logits: Tensor, wanted: Sequence[Tensor]) -> bool:
    """Whether logits (R, V) are the wanted ones, but for rounding."""
    expected = torch.stack(list(wanted))
    return bool((logits - expected).abs().mean() <= SAME.get(model.dtype, SAME[torch.bfloat16]) * expected.std())
