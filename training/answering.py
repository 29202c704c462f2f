"""A model that answers many prompts: here, in batches, or behind an endpoint, request by request."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from training.config import RespondConfig
from training.data.encoding import chat_template
from training.data.examples import SetPrompt
from training.data.lines import RowError
from training.device import Device, is_out_of_memory
from training.endpoint import Endpoint, Request
from training.errors import InputError, OutOfMemory, Stopped
from training.generate import Way, find_way, generate
from training.journal import Journal
from training.sampling import Sampling
from training.throttle import Throttle

Begin = Callable[[Sequence[str]], None]
Stop = Callable[[], bool]
Result = dict[str, Any]  # {"response", "ended", "tokens"}

MOST_ROWS = {"cpu": 32, "cuda": 256}  # answers at once: more bring little, and are more to make again after a kill
SECONDS = 0.5  # between two looks at the wish to stop


class Answerer(Protocol):
    """One model, ready to answer."""

    facts: Mapping[str, Any]  # what its answers depend on beside the prompt

    def do(
        self, prompts: Mapping[str, SetPrompt], left: Sequence[str], begin: Begin, stop: Stop
    ) -> Iterator[dict[str, Result]]:
        """Answer what is `left` of the prompts, all by key. Gives answers as they come. Raises TrainingError, Stopped."""


@dataclass
class EndpointAnswerer:
    """A model behind an OpenAI-compatible endpoint."""

    endpoint: Endpoint
    config: RespondConfig
    facts: Mapping[str, Any]

    def do(
        self, prompts: Mapping[str, SetPrompt], left: Sequence[str], begin: Begin, stop: Stop
    ) -> Iterator[dict[str, Result]]:
        options: dict[str, Any] = {"max_tokens": self.config.max_new_tokens, "temperature": self.config.temperature}
        if self.config.temperature:
            options |= {"top_p": self.config.top_p, "seed": self.config.seed}
        requests = [Request(key, prompts[key].messages, options) for key in left]
        for key, reply in self.endpoint.ask(requests, stop, lambda key: begin([key])):
            yield {key: {"response": reply.text, "ended": reply.ended, "tokens": reply.tokens}}


@dataclass
class ModelAnswerer:
    """A model that runs here. Its batches are cut the same way in every attempt, so a killed run's answers are the same.

    `context`: tokens that it reads at most, prompt and answer together; None where it does not say.
    """

    model: Any
    tokenizer: Any
    device: Device
    context: int | None
    config: RespondConfig
    facts: Mapping[str, Any]
    journal: Journal

    def do(
        self, prompts: Mapping[str, SetPrompt], left: Sequence[str], begin: Begin, stop: Stop
    ) -> Iterator[dict[str, Result]]:
        ids = {key: self._encode(prompt) for key, prompt in prompts.items()}
        full = [key for key in left if self._room(ids[key]) < 1]
        if full:
            self._tell_full([prompts[key].prompt_id for key in full])
            begin(full)
            yield {key: {"response": "", "ended": False, "tokens": 0} for key in full}
        wanted = set(left) - set(full)
        for batch in self._batches({key: each for key, each in ids.items() if self._room(each) >= 1}):
            if wanted.isdisjoint(batch):
                continue
            if stop():
                raise Stopped
            begin(batch)
            yield self._answer(batch, ids, stop)

    def _encode(self, prompt: SetPrompt) -> list[int]:
        try:
            text = chat_template(self.tokenizer).render(prompt.messages, add_generation_prompt=True)
        except RowError as error:
            raise InputError(
                f"The prompt “{prompt.prompt_id}” cannot be asked: {error.message}", error.hint, field="prompts"
            ) from None
        found: list[int] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def _room(self, ids: Sequence[int]) -> int:
        """Tokens that an answer may have."""
        return min(self.config.max_new_tokens, self._room_behind(len(ids)))

    def _room_behind(self, prompt: int) -> int:
        return self.config.max_new_tokens if self.context is None else self.context - prompt

    @cached_property
    def _way(self) -> Way:
        way = find_way(self.model, self.device)
        if way != "ours":
            how = "transformers' own loop" if way == "transformers" else "transformers' own loop, one by one"
            self.journal.log(f"This architecture needs {how} to answer, which is slower.", "warning")
        return way

    def _batches(self, ids: Mapping[str, Sequence[int]]) -> list[list[str]]:
        """Prompts of like length together, the longest first: what does not fit shows at once."""
        left = sorted(ids, key=lambda key: (-len(ids[key]), key))
        batches = []
        while left:
            rows = self.config.micro_batch_size or self._fitting(len(ids[left[0]]))
            batches.append(left[:rows])
            left = left[rows:]
        return batches

    def _fitting(self, prompt: int) -> int:
        """Answers to prompts of so many tokens that the device takes at once, of no more than help."""
        free = memory_for_answers(self.device, weights=sum(each.nbytes for each in self.model.parameters()))
        row = row_bytes(self.model, prompt, min(self.config.max_new_tokens, self._room_behind(prompt)))
        return int(max(1, min(MOST_ROWS[self.device.torch.type], free // row)))

    def _answer(self, batch: Sequence[str], ids: Mapping[str, Sequence[int]], stop: Stop) -> dict[str, Result]:
        throttle = Throttle(SECONDS)
        throttle.ready()

        def pause() -> None:
            if throttle.ready() and stop():
                raise Stopped

        try:
            answers = generate(
                self.model, self.tokenizer, self.device, [ids[key] for key in batch], [self._room(ids[key]) for key in batch],
                Sampling(self.config.temperature, self.config.top_p, self.config.seed), self._way, pause,
            )  # fmt: skip
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return {
                key: {"response": each.text, "ended": each.ended, "tokens": each.tokens}
                for key, each in zip(batch, answers, strict=True)
            }
        # Outside of the handler: the exception's frames still hold the tensors that did not fit.
        if len(batch) == 1:
            raise OutOfMemory(
                "The device has too little memory, even for one answer at a time.",
                "Ask for shorter answers (max_new_tokens), or take a smaller model.",
            )
        gc.collect()
        if self.device.is_gpu:
            torch.cuda.empty_cache()
        self.journal.log(f"Out of memory with {len(batch):,} answers at once: they are made in two halves.", "warning")
        half = len(batch) // 2
        return self._answer(batch[:half], ids, stop) | self._answer(batch[half:], ids, stop)

    def _tell_full(self, prompts: Sequence[str]) -> None:
        named = ", ".join(prompts[:5]) + (f" and {len(prompts) - 5:,} more" if len(prompts) > 5 else "")
        self.journal.log(
            f"{len(prompts):,} prompts leave no room for an answer in the {self.context:,} tokens that the model reads: "
            f"their answers are empty ({named}).",
            "warning",
        )


def memory_for_answers(device: Device, weights: int) -> float:
    """Bytes for what answers keep: of all that the device has, so that every attempt cuts the same batches.

    A CPU's memory is shared with others, and ends a process that takes too much of it.
    """
    if device.is_gpu:
        return float(0.8 * torch.cuda.get_device_properties(device.torch).total_memory - weights)
    return float(0.25 * min(psutil.virtual_memory().total, _container_limit()))


def _container_limit() -> float:
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return float("inf")


def row_bytes(model: Any, prompt: int, answer: int) -> int:
    """Bytes that one answer takes at most: its keys and values with some room (training.decoding.RoomyLayer), what a layer
    holds while it reads the prompt, a mask, and the logits of one place as they are sorted.
    """
    shape = model.config.get_text_config()
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    pairs = getattr(shape, "num_key_value_heads", None) or heads
    size = getattr(shape, "head_dim", None) or hidden // heads
    wide = getattr(shape, "intermediate_size", None) or 4 * hidden
    item = model.dtype.itemsize
    kept = 2 * shape.num_hidden_layers * pairs * size * item * (prompt + answer) * 5 // 4
    seen = prompt * prompt * (1 if model._supports_sdpa else 8 * heads)
    return int(kept + prompt * (14 * hidden + 5 * wide) * item + seen + 16 * shape.vocab_size)
