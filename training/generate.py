"""Answers of a model to prompts: batched, with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from training.decoding import Choose, alike, alone, can_decode, check_numbers, decode, trial_prompts, whole
from training.device import Device
from training.forward import usual_attention
from training.sampling import GREEDY, Chooser, Sampling
from training.tokenizer import stop_ids

Way = Literal["ours", "transformers", "alone"]
"""How a model generates: our loop (training/decoding.py), transformers' in padded batches, transformers' one by one."""


@dataclass(frozen=True)
class Answer:
    """What a model answered. `ended`: it stopped by itself, it was not cut. `ids`: its tokens, the end's included."""

    text: str
    ended: bool
    tokens: int  # the end's not counted
    ids: list[int]


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
    most: int | Sequence[int],
    sampling: Sampling = GREEDY,
    way: Way = "transformers",
    pause: Callable[[int], None] = lambda ended: None,
) -> list[Answer]:
    """Answer prompts (token ids, each with its generation prompt), all at once. `set_ends` comes before.

    `most`: tokens of an answer, of all or of each. `way`: one that `find_way` gave, or transformers'. `pause` is called
    between two tokens, with how many answers have ended. Leaves the model in the mode that it was in. Raises ModelError.
    """
    if not prompts:
        return []
    limits = [most] * len(prompts) if isinstance(most, int) else list(most)
    ends = _ends(model)
    choose = Chooser(sampling, prompts, max(limits), device.torch)
    trains = model.training
    model.eval()
    try:
        with usual_attention(model), device.autocast():
            if way == "ours":
                written = decode(model, device, prompts, limits, ends, tokenizer.pad_token_id, choose, pause)
            else:
                written = _with_transformers(model, device, prompts, limits, way, choose, pause)
    finally:
        model.train(trains)
    return [_answer(whole(ids, limit, ends), tokenizer, ends) for ids, limit in zip(written, limits, strict=True)]


def find_way(model: Any, device: Device) -> Way:
    """The fastest way in which a model answers as it does when it is asked alone, found by trying."""
    if can_decode(model, device):
        return "ours"
    prompts = trial_prompts(model)
    ids, mask = _padded(model, device, prompts)
    options: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True, "do_sample": False}
    with torch.no_grad():
        output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=1, **options)
        wanted = [alone(model, device, prompt) for prompt in prompts]
    return "transformers" if alike(model, output.logits[0], wanted) else "alone"


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends)


def _with_transformers(
    model: Any, device: Device, prompts: Sequence[Sequence[int]], limits: Sequence[int], way: Way, choose: Choose,
    pause: Callable[[int], None],
) -> list[list[int]]:  # fmt: skip
    """What follows each prompt; behind its end there may be anything."""
    parts = [[row] for row in range(len(prompts))] if way == "alone" else [list(range(len(prompts)))]
    written = []
    for part in parts:
        ids, mask = _padded(model, device, [prompts[row] for row in part])
        most = max(limits[row] for row in part)
        chosen = _Chosen(choose, part, ids.shape[1], pause)
        output = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=most, use_cache=True, do_sample=False,
            logits_processor=[chosen],
        )  # fmt: skip
        written += output[:, ids.shape[1] :].tolist()
    return written


def _padded(model: Any, device: Device, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(R, L) token ids, padded at the left, and their mask."""
    longest, filler = max(map(len, prompts)), model.generation_config.pad_token_id
    ids = torch.tensor([[filler] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device.torch), mask.to(device.torch)


class _Chosen(LogitsProcessor):
    """Leaves transformers' loop one token to take for each row: the one that we choose."""

    def __init__(self, choose: Choose, rows: Sequence[int], begin: int, pause: Callable[[int], None]) -> None:
        self._choose, self._rows, self._begin, self._pause = choose, rows, begin, pause

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._pause(0)
        step = input_ids.shape[1] - self._begin
        if not step:
            check_numbers(scores)
        tokens = self._choose(scores.float(), self._rows, step)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


def _answer(ids: list[int], tokenizer: Any, ends: set[int]) -> Answer:
    ended = bool(ids) and ids[-1] in ends
    words = ids[:-1] if ended else ids
    text = tokenizer.decode(words, skip_special_tokens=True).replace("\0", "")  # which no data file may hold
    return Answer(text, ended, len(words), ids)
