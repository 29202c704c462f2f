"""Reward models that run here: a sequence classifier, or a causal model in Nemotron's form; answers in batches.

What it does: any model that transformers' AutoModelForSequenceClassification loads with one score, also what our
reward stage leaves; Llama-3.1-Nemotron-70B-Reward-HF and its kin; halves its batches where memory runs out.
What it does not: models with code of their own, several scores, several GPUs, quantised weights.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import GenerationConfig

from training.batches import MicroBatch, micro_batches
from training.device import Device, is_out_of_memory
from training.errors import ModelError, OutOfMemory, Stopped
from training.journal import Journal
from training.judging.answers import Answers
from training.judging.conversations import Conversations
from training.judging.judge import Begin, Judged, Shown, Stop, parts_of
from training.judging.scores import FIRST, SECOND, score_rows, score_works

Ids = NDArray[np.int32]  # (tokens,)
Score = Callable[[Sequence[Ids]], list[float]]
"""The scores of conversations, all at once. Raises what torch raises where memory runs out."""


class ModelJudge:
    """A reward model that runs here (training.judging.judge.Judge)."""

    noun, costs = "answer", False

    def __init__(
        self, answers: Answers, twice: Collection[str], name: str, made: Conversations, score: Score,
        limit: MicroBatch, identity: dict[str, str], journal: Journal, seed: int,
    ) -> None:  # fmt: skip
        self._answers, self._twice, self._name, self._made, self._score = answers, twice, name, made, score
        self._limit, self.identity, self._journal, self._seed = limit, identity, journal, seed
        self._begun: set[str] = set()

    def works(self) -> list[str]:
        return [key for key in score_works(self._answers, self._twice) if _place(key) in self._made.ids]

    def do(self, keys: Sequence[str], begin: Begin, stop: Stop) -> Iterator[dict[str, Any]]:
        """Answers of similar length together; the second time, as they come, so that each has other company."""
        first, second = ([key for key in keys if parts_of(key)[2] == time] for time in (FIRST, SECOND))
        yield from self._batches(first, self._alike, begin, stop)
        yield from self._batches(second, self._mixed, begin, stop)

    def _batches(
        self, keys: Sequence[str], cut: Callable[[Sequence[str]], list[list[str]]], begin: Begin, stop: Stop
    ) -> Iterator[dict[str, Any]]:
        batches = cut(keys)
        while batches:
            if stop():
                raise Stopped
            batch = batches[0]
            if fresh := [key for key in batch if key not in self._begun]:
                begin(fresh)
                self._begun.update(fresh)
            scores = self._try(batch)
            if scores is None:
                self._halve(batch)
                batches = cut([key for each in batches for key in each])
                continue
            self._check(batch, scores)
            yield dict(zip(batch, scores, strict=True))
            batches = batches[1:]

    def _try(self, batch: Sequence[str]) -> list[float] | None:
        """None where memory ran out."""
        try:
            return self._score([self._made.ids[_place(key)] for key in batch])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _halve(self, batch: Sequence[str]) -> None:
        smaller = self._limit.halved()
        if len(batch) == 1 or smaller is None:
            raise OutOfMemory(
                "The device has too little memory for this judge, even for one answer at a time.",
                "Take a smaller judge, or one behind an endpoint.",
                field="judge",
            )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._limit = smaller
        self._journal.log(f"Out of memory: micro-batches are now {smaller.describe()}.", "warning")

    def _check(self, batch: Sequence[str], scores: Sequence[float]) -> None:
        for key, score in zip(batch, scores, strict=True):
            if not math.isfinite(score):
                prompt_id, model = _place(key)
                raise ModelError(
                    f"The judge gives the answer of “{model}” to the prompt “{prompt_id}” no number as its score, "
                    f"but {score}.",
                    "Its weights are broken, or too large for this precision: try precision fp32, or another judge.",
                    field="judge",
                )

    def _alike(self, keys: Sequence[str]) -> list[list[str]]:
        cuts = micro_batches(range(len(keys)), self._lengths(keys), self._limit, padded=True)
        return [[keys[index] for index in cut] for cut in cuts]

    def _mixed(self, keys: Sequence[str]) -> list[list[str]]:
        order = Random(self._seed).sample(range(len(keys)), len(keys))
        lengths = self._lengths(keys)
        cuts: list[list[int]] = []
        for index in order:
            if not cuts or not self._fits([*cuts[-1], index], lengths):
                cuts.append([])
            cuts[-1].append(index)
        return [[keys[index] for index in cut] for cut in cuts]

    def _fits(self, chosen: Sequence[int], lengths: NDArray[np.int64]) -> bool:
        if self._limit.examples is not None:
            return len(chosen) <= self._limit.examples
        return bool(len(chosen) * lengths[list(chosen)].max() <= (self._limit.tokens or 0))

    def _lengths(self, keys: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(self._made.ids[_place(key)]) for key in keys], np.int64)

    def conclude(self, done: Mapping[str, Any]) -> Judged:
        judged = score_rows(self._answers, done, self._name, self._twice)
        judged.words += self._made.words
        return judged

    def show(self, key: str, result: Any) -> Shown:
        prompt_id, model = _place(key)
        question = next(each for each in self._answers.questions if each.prompt_id == prompt_id)
        asked = self._answers.asked(question)[-1]["content"]
        return Shown(asked, f"{model}, score {result:.3g}: {question.answers[model]}")


def _place(key: str) -> tuple[str, str]:
    prompt_id, model, _ = parts_of(key)
    return prompt_id, model


# -- two forms of reward models ------------------------------------------------------------------------------------


def classifier_scores(model: Any, device: Device) -> Score:
    """transformers' own score of each conversation as if it stood alone: the one logit of a sequence classifier.

    transformers looks for the last token that is no padding by its id. Where the config names none, one is named that
    is not in the batch.
    """
    settings = model.config.get_text_config()
    named, rows = settings.pad_token_id, model.get_input_embeddings().num_embeddings
    head = getattr(model, "score", None)
    if isinstance(head, nn.Linear):  # in bf16, near scores would be equal
        head.float()
        head.register_forward_pre_hook(lambda module, states: (states[0].float(),))

    @torch.inference_mode()
    def scores(batch: Sequence[Ids]) -> list[float]:
        if named is not None:
            return _logits(model, device, batch, named)
        settings.pad_token_id = _unused(batch, rows)
        if settings.pad_token_id is None:  # every token of a small vocabulary is there
            return [_logits(model, device, [each], 0)[0] for each in batch]
        return _logits(model, device, batch, settings.pad_token_id)

    return scores


def _unused(batch: Sequence[Ids], rows: int) -> int | None:
    used = set(np.concatenate(batch).tolist())
    return next((index for index in range(rows) if index not in used), None)


def _logits(model: Any, device: Device, batch: Sequence[Ids], filler: int) -> list[float]:
    ids, mask = _padded(batch, filler, left=False)
    logits = model(input_ids=ids.to(device.torch), attention_mask=mask.to(device.torch)).logits
    found: list[float] = logits[:, 0].float().tolist()
    return found


def nemotron_scores(model: Any, filler: int, device: Device) -> Score:
    """As the card of nvidia/Llama-3.1-Nemotron-70B-Reward-HF has it: what `generate` gives token 0 as the next one."""
    model.generation_config = GenerationConfig(pad_token_id=filler, do_sample=False)

    @torch.inference_mode()
    def scores(batch: Sequence[Ids]) -> list[float]:
        ids, mask = _padded(batch, filler, left=True)
        output = model.generate(
            input_ids=ids.to(device.torch),
            attention_mask=mask.to(device.torch),
            max_new_tokens=1,
            return_dict_in_generate=True,
            output_scores=True,
            use_cache=False,
        )
        found: list[float] = output.scores[0][:, 0].float().tolist()
        return found

    return scores


def _padded(batch: Sequence[Ids], filler: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both (N, longest)."""
    longest = max(map(len, batch))
    ids = np.full((len(batch), longest), filler, np.int64)
    mask = np.zeros((len(batch), longest), np.int64)
    for row, each in enumerate(batch):
        place = slice(longest - len(each), None) if left else slice(len(each))
        ids[row, place], mask[row, place] = each, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
