"""A model that answers many prompts: here, in batches, or behind an endpoint, request by request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from training.config import RespondConfig
from training.data.encoding import chat_template
from training.data.examples import SetPrompt
from training.data.lines import RowError
from training.device import Device, is_out_of_memory
from training.endpoint import Endpoint, Request
from training.errors import InputError, OutOfMemory, Stopped
from training.generate import Sampling, generate
from training.journal import Journal

Begin = Callable[[Sequence[str]], None]
Stop = Callable[[], bool]
Result = dict[str, Any]  # {"response", "ended", "tokens"}

MOST_ROWS = {"cpu": 32, "cuda": 256}  # answers at once: more bring a CPU nothing


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
            yield self._answer(batch, ids)

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
        most = self.config.max_new_tokens
        return most if self.context is None else min(most, self.context - len(ids))

    def _batches(self, ids: Mapping[str, Sequence[int]]) -> list[list[str]]:
        """Prompts of like length together; one that leaves less room than others is alone."""
        rows = self.config.micro_batch_size or MOST_ROWS[self.device.torch.type]
        order = sorted(ids, key=lambda key: (len(ids[key]), key))
        roomy = [key for key in order if self._room(ids[key]) == self.config.max_new_tokens]
        alone = [[key] for key in order if self._room(ids[key]) < self.config.max_new_tokens]
        return [roomy[start : start + rows] for start in range(0, len(roomy), rows)] + alone

    def _answer(self, batch: Sequence[str], ids: Mapping[str, Sequence[int]]) -> dict[str, Result]:
        try:
            answers = generate(
                self.model, self.tokenizer, self.device, [ids[key] for key in batch], self._room(ids[batch[0]]),
                Sampling(self.config.temperature, self.config.top_p, self._seed(batch)),
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
        if self.device.is_gpu:
            torch.cuda.empty_cache()
        self.journal.log(f"Out of memory with {len(batch):,} answers at once: they are made in two halves.", "warning")
        half = len(batch) // 2
        return self._answer(batch[:half], ids) | self._answer(batch[half:], ids)

    def _seed(self, batch: Sequence[str]) -> int:
        """Of what is drawn for a batch: the same in every attempt."""
        name = f"{self.config.seed} {' '.join(batch)}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=6).digest())

    def _tell_full(self, prompts: Sequence[str]) -> None:
        named = ", ".join(prompts[:5]) + (f" and {len(prompts) - 5:,} more" if len(prompts) > 5 else "")
        self.journal.log(
            f"{len(prompts):,} prompts leave no room for an answer in the {self.context:,} tokens that the model reads: "
            f"their answers are empty ({named}).",
            "warning",
        )
