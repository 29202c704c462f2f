"""Answers of a model to prompts: batched, with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from training.device import Device
from training.forward import usual_attention
from training.tokenizer import stop_ids


@dataclass(frozen=True)
class Answer:
    """What a model answered. `ended`: it stopped by itself, it was not cut. `ids`: its tokens, the end's included."""

    text: str
    ended: bool
    tokens: int  # the end's not counted
    ids: list[int]


def set_ends(model: PreTrainedModel, tokenizer: Any) -> None:
    """Make the model's generation end where its training data's answers end, greedily unless asked otherwise."""
    ends = stop_ids(tokenizer)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    device: Device,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[Answer]:
    """Answer prompts (token ids, each with its generation prompt) greedily, all at once. `set_ends` comes before.

    Leaves the model in the mode that it was in.
    """
    if not prompts:
        return []
    longest = max(len(prompt) for prompt in prompts)
    ends = stop_ids(tokenizer)
    filler = tokenizer.pad_token_id
    ids = torch.tensor([[filler] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    trains = model.training
    model.eval()
    try:
        with usual_attention(model), device.autocast():
            output = model.generate(
                input_ids=ids.to(device.torch),
                attention_mask=mask.to(device.torch),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
            )
    finally:
        model.train(trains)
    return [_answer(row[longest:].tolist(), tokenizer, set(ends)) for row in output]


def _answer(ids: list[int], tokenizer: Any, ends: set[int]) -> Answer:
    stop = next((place for place, token in enumerate(ids) if token in ends), None)
    words = ids if stop is None else ids[:stop]
    written = ids if stop is None else ids[: stop + 1]
    return Answer(tokenizer.decode(words, skip_special_tokens=True), stop is not None, len(words), written)
