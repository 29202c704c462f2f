"""Answers of a model to prompts: batched, with a key-value cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. temperature 0: always the likeliest. `seed`: of what is drawn, for the whole batch."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()


def set_ends(model: PreTrainedModel, tokenizer: Any) -> None:
    """Make the model's generation end where its training data's answers end, or where it says itself that it ends."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = list(dict.fromkeys([*stop_ids(tokenizer), *([own] if isinstance(own, int) else own or [])]))
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
    sampling: Sampling = GREEDY,
) -> list[Answer]:
    """Answer prompts (token ids, each with its generation prompt), all at once. `set_ends` comes before.

    Leaves the model in the mode that it was in.
    """
    if not prompts:
        return []
    longest = max(len(prompt) for prompt in prompts)
    ends = model.generation_config.eos_token_id
    filler = tokenizer.pad_token_id
    ids = torch.tensor([[filler] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    trains = model.training
    model.eval()
    try:
        with usual_attention(model), device.autocast(), _seeded(sampling, device):
            output = model.generate(
                input_ids=ids.to(device.torch),
                attention_mask=mask.to(device.torch),
                max_new_tokens=max_new_tokens,
                use_cache=True,
                **_choice(sampling),
            )
    finally:
        model.train(trains)
    ends = {ends} if isinstance(ends, int) else set(ends)
    return [_answer(row[longest:].tolist(), tokenizer, ends) for row in output]


def _choice(sampling: Sampling) -> dict[str, Any]:
    """transformers' settings; its own top_k of 50 is off."""
    if not sampling.temperature:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}


@contextlib.contextmanager
def _seeded(sampling: Sampling, device: Device) -> Iterator[None]:
    """Draw from a seed of its own, and leave the generators as they were."""
    if not sampling.temperature:
        yield
        return
    with torch.random.fork_rng(devices=[device.torch] if device.is_gpu else []):
        torch.manual_seed(sampling.seed)
        yield


def _answer(ids: list[int], tokenizer: Any, ends: set[int]) -> Answer:
    stop = next((place for place, token in enumerate(ids) if token in ends), None)
    words = ids if stop is None else ids[:stop]
    written = ids if stop is None else ids[: stop + 1]
    return Answer(tokenizer.decode(words, skip_special_tokens=True), stop is not None, len(words), written)
