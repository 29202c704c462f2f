"""A model that answers many prompts: here, in batches, or behind an endpoint, request by request."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM

from training.answer_cache import digest
from training.answer_room import memory_for_answers, row_bytes
from training.config import RespondConfig
from training.data.chat import ChatTemplate
from training.data.encoding import chat_template, plain_backend
from training.data.examples import SetPrompt
from training.data.lines import RowError
from training.data.rows import MOST_ANSWER
from training.device import Device, choose_device, is_out_of_memory
from training.endpoint import Endpoint, Request
from training.errors import InputError, OutOfMemory, Stopped
from training.files import sha256_of
from training.generate import Answer, find_way, generate, set_ends
from training.journal import Journal
from training.loading import Loaded, check_vocabulary, load_pretrained, take_weights
from training.model_files import ModelFacts
from training.rundir import ResolvedInput
from training.sampling import Sampling
from training.throttle import Throttle
from training.tokenizer import load_tokenizer
from training.words import were

Begin = Callable[[Sequence[str]], None]
Stop = Callable[[], bool]
GoOn = Callable[[int], None]  # told again and again how many of the answers in the making have ended
Result = dict[str, Any]  # {"response", "ended", "tokens"}

MOST_ROWS = {"cpu": 32, "cuda": 256}  # answers at once: more bring little, and are more to make again after a kill
SECONDS = 0.5  # between two looks at the wish to stop


class Answerer(Protocol):
    """One model that answers.

    `facts`: what its answers depend on beside the prompt; `where`: on what device and in what precision, which they
    depend on in their last bits. Both are JSON.
    """

    facts: Mapping[str, Any]
    where: Mapping[str, Any]

    def open(self) -> None:
        """Make ready to answer. Raises TrainingError."""

    def close(self) -> None:
        """Give back what was taken."""

    def do(
        self, prompts: Mapping[str, SetPrompt], left: Sequence[str], begin: Begin, stop: Stop, go_on: GoOn
    ) -> Iterator[dict[str, Result]]:
        """Answer what is `left` of the prompts, all by key. Gives answers as they come. Raises TrainingError, Stopped."""


def settings_of(config: RespondConfig) -> dict[str, Any]:
    """What of a config decides its answers."""
    drawn = {"top_p": config.top_p, "seed": config.seed} if config.temperature else {}
    return {"max_new_tokens": config.max_new_tokens, "temperature": config.temperature, **drawn}


class EndpointAnswerer:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self, endpoint: Endpoint, url: str, config: RespondConfig) -> None:
        self._endpoint = endpoint
        asked = settings_of(config)
        self._options = {"max_tokens": asked.pop("max_new_tokens"), **asked}
        self.facts: Mapping[str, Any] = {"url": url, "model": endpoint.model, **settings_of(config)}
        self.where: Mapping[str, Any] = {}

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def do(
        self, prompts: Mapping[str, SetPrompt], left: Sequence[str], begin: Begin, stop: Stop, go_on: GoOn
    ) -> Iterator[dict[str, Result]]:
        requests = [Request(key, prompts[key].messages, self._options) for key in left]
        for key, reply in self._endpoint.ask(requests, stop, lambda key: begin([key])):
            cut = len(reply.text) > MOST_ANSWER  # more than a table takes
            yield {
                key: {
                    "response": reply.text[:MOST_ANSWER],
                    "ended": reply.ended and not cut,
                    "tokens": reply.tokens,
                }
            }


class ModelAnswerer:
    """A model that runs here. Its batches are cut the same way in every attempt, so a killed run's answers are the same.

    `identity`: of its weights (training.preparation.model_identity). `found`: a checkpoint's weights in their place.
    """

    def __init__(
        self, folder: Path, about: ModelFacts, found: ResolvedInput | None, identity: str, config: RespondConfig,
        journal: Journal,
    ) -> None:  # fmt: skip
        self._folder, self._about, self._found, self.config, self.journal = folder, about, found, config, journal
        self.context = about.max_positions
        self.tokenizer = load_tokenizer(folder)
        self.device = choose_device(config.precision, about.parameters)
        own = folder / "generation_config.json"  # which names ends
        self.facts: Mapping[str, Any] = {
            **settings_of(config), "model": identity, "ends": sha256_of(own) if own.is_file() else None,
            "tokenizer": digest(self.tokenizer.backend_tokenizer.to_str()), "template": self.tokenizer.chat_template,
        }  # fmt: skip
        self.where: Mapping[str, Any] = {"device": self.device.torch.type, "half": self.device.half}
        self._most: int | None = None  # answers at once, where memory was too small for more
        self._refused = RowError("there is nothing to ask.", "Write something into it, or leave it out.")

    def open(self) -> None:
        """Load it, in the precision of the computation: nothing is learnt here, so no more is needed."""
        self.journal.status("loading the model")
        dtype = torch.bfloat16 if self.device.half else torch.float32
        self.model = load_pretrained(AutoModelForCausalLM, self._folder, dtype, "a causal language model")
        take_weights(Loaded(self.model, dtype), self._found)
        check_vocabulary(self.model, self.tokenizer)
        set_ends(self.model, self.tokenizer)
        self.model.to(device=self.device.torch, dtype=dtype).eval()
        self.journal.log(f"{self._about.parameters:,} parameters, on {self.device.describe()}.")
        self._way = find_way(self.model, self.device)
        if self._way != "ours":
            how = "transformers' own loop" if self._way == "transformers" else "transformers' own loop, one by one"
            self.journal.log(f"This architecture needs {how} to answer, which is slower.", "warning")

    def close(self) -> None:
        del self.model
        _free(self.device)

    def do(
        self, prompts: Mapping[str, SetPrompt], left: Sequence[str], begin: Begin, stop: Stop, go_on: GoOn
    ) -> Iterator[dict[str, Result]]:
        ids = {key: self._encode(prompt) for key, prompt in prompts.items()}
        self._check_refused(prompts, ids)
        unasked = [key for key in left if self._room(ids[key]) < 1 or not ids[key]]
        if unasked:
            self._tell_full([prompts[key].prompt_id for key in unasked if ids[key]])
            begin(unasked)
            yield {key: {"response": "", "ended": False, "tokens": 0} for key in unasked}
        wanted = set(left)
        for batch in self._batches({key: each for key, each in ids.items() if self._room(each) >= 1 and each}):
            if wanted.isdisjoint(batch):
                continue
            if stop():
                raise Stopped
            begin(batch)
            yield self._answer(batch, ids, stop, go_on)

    def _encode(self, prompt: SetPrompt) -> list[int]:
        """Its tokens; none where the chat template refuses it."""
        try:
            text = self._template.render(prompt.messages, add_generation_prompt=True)
        except RowError as error:
            self._refused = error
            return []
        found: list[int] = plain_backend(self.tokenizer).encode(text, add_special_tokens=False).ids
        return found

    @cached_property
    def _template(self) -> ChatTemplate:
        return chat_template(self.tokenizer)

    def _check_refused(self, prompts: Mapping[str, SetPrompt], ids: Mapping[str, Sequence[int]]) -> None:
        """Raise InputError where no prompt can be asked; warn where some cannot."""
        refused = [prompts[key].prompt_id for key in ids if not ids[key]]
        if refused and len(refused) == len(ids):
            raise InputError(f"No prompt can be asked: {self._refused.message}", self._refused.hint, field="prompts")
        if refused:
            self.journal.log(
                f"{were(len(refused), 'prompt')} not asked, and the answers are empty ({_named(refused)}): "
                f"{self._refused.message}",
                "warning",
            )

    def _room(self, ids: Sequence[int]) -> int:
        """Tokens that an answer may have."""
        return min(self.config.max_new_tokens, self._room_behind(len(ids)))

    def _room_behind(self, prompt: int) -> int:
        return self.config.max_new_tokens if self.context is None else self.context - prompt

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

    def _answer(
        self, batch: Sequence[str], ids: Mapping[str, Sequence[int]], stop: Stop, go_on: GoOn
    ) -> dict[str, Result]:
        """All answers of a batch, in parts where memory is too small for it. Raises OutOfMemory, Stopped."""
        made: dict[str, Result] = {}
        while len(made) < len(batch):
            part = batch[len(made) :][: self._most]
            answers = self._try(part, ids, stop, lambda ended: go_on(len(made) + ended))
            if answers is None:
                self._halve(len(part))
                continue
            for key, each in zip(part, answers, strict=True):
                text = each.text.replace("\0", "")  # which no table would take
                made[key] = {"response": text, "ended": each.ended, "tokens": each.tokens}
        return made

    def _try(
        self, part: Sequence[str], ids: Mapping[str, Sequence[int]], stop: Stop, go_on: GoOn
    ) -> list[Answer] | None:
        """None where memory ran out."""
        throttle = Throttle(SECONDS)
        throttle.ready()

        def pause(ended: int) -> None:
            if throttle.ready() and stop():
                raise Stopped
            go_on(ended)

        sampling = Sampling(self.config.temperature, self.config.top_p, self.config.seed)
        prompts, limits = [ids[key] for key in part], [self._room(ids[key]) for key in part]
        try:
            return generate(self.model, self.tokenizer, self.device, prompts, limits, sampling, self._way, pause)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _halve(self, rows: int) -> None:
        if rows == 1:
            raise OutOfMemory(
                "The device has too little memory, even for one answer at a time.",
                "Ask for shorter answers, or take a smaller model.",
                field="max_new_tokens",
            )
        self._most = rows // 2
        _free(self.device)
        self.journal.log(
            f"Out of memory with {rows:,} answers at once: {self._most:,} are made from now on.", "warning"
        )

    def _tell_full(self, prompts: Sequence[str]) -> None:
        if not prompts:
            return
        leave = "prompt leaves" if len(prompts) == 1 else "prompts leave"
        self.journal.log(
            f"{len(prompts):,} {leave} no room for an answer in the {self.context:,} tokens that the model reads: "
            f"the answer is empty ({_named(prompts)}).",
            "warning",
        )


def _named(prompts: Sequence[str]) -> str:
    more = f" and {len(prompts) - 5:,} more" if len(prompts) > 5 else ""
    return ", ".join(prompts[:5]) + more


def _free(device: Device) -> None:
    gc.collect()
    if device.is_gpu:
        torch.cuda.empty_cache()
