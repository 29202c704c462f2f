"""How many answers a second are made, against transformers' `generate` in padded batches of the same size.

    python -m benchmarks.respond [--prompts 64] [--batch 16] [--shape small] [--threads 2] [--half] [--rounds 3]

Both let the same fresh Qwen2-shaped model answer the same prompts greedily, in the same batches of prompts of like
length, in turns on this machine. A fresh model does not end its answers, so each answer is given a length, log-normal
as real ones are: ours takes it as the answer's limit, transformers' as a stopping criterion of each row. The last of
a batch to end decides how long transformers computes for all of it. The answers are compared, too: in fp32 they must
be the same.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, StoppingCriteria, StoppingCriteriaList

from benchmarks.about import about
from training.decoding import decode
from training.device import Device
from training.generate import find_way
from training.model_files import NEW_SHAPES
from training.sampling import GREEDY, Chooser

MOST = 512  # tokens of an answer
NO_END = -1  # a token that no model writes
Answers = list[list[int]]
Make = Callable[[Sequence[list[int]], Sequence[int]], Answers]


class Lengths(StoppingCriteria):
    """Ends each row of a batch at its own length."""

    def __init__(self, prompt: int, limits: Sequence[int]) -> None:
        self._prompt, self._limits = prompt, torch.tensor(list(limits))

    def __call__(self, input_ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
        return self._limits <= input_ids.shape[1] - self._prompt


def synthetic(count: int, vocabulary: int) -> tuple[list[list[int]], list[int]]:
    """Prompts of 10 to 300 tokens, sorted, and the lengths of their answers, 4 to MOST tokens, which depend on nothing."""
    draw = np.random.default_rng(0)
    prompts = np.sort(np.clip(draw.lognormal(4.0, 0.7, count).astype(int), 10, 300))
    answers = np.clip(draw.lognormal(4.3, 0.8, count).astype(int), 4, MOST)
    return [draw.integers(2, vocabulary, length).tolist() for length in prompts], answers.tolist()


def ours(model: PreTrainedModel, device: Device) -> Make:
    def make(prompts: Sequence[list[int]], limits: Sequence[int]) -> Answers:
        choose = Chooser(GREEDY, prompts, max(limits), device.torch)
        return decode(model, device, prompts, limits, {NO_END}, 0, choose)

    return make


def plain(model: Any) -> Make:
    """As most would write it with transformers."""

    def make(prompts: Sequence[list[int]], limits: Sequence[int]) -> Answers:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        output = model.generate(
            ids, attention_mask=mask, max_new_tokens=max(limits), do_sample=False, pad_token_id=0, eos_token_id=None,
            stopping_criteria=StoppingCriteriaList([Lengths(longest, limits)]),
        )  # fmt: skip
        return [row[longest : longest + limit].tolist() for row, limit in zip(output, limits, strict=True)]

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--shape", choices=sorted(NEW_SHAPES), default="small")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--half", action="store_true", help="in bf16")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    settings = NEW_SHAPES[options.shape].config()
    del settings["model_type"]
    model = Qwen2ForCausalLM(Qwen2Config(**settings)).eval()
    model = model.to(torch.bfloat16) if options.half else model
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    device = Device(torch.device("cpu"), options.half)
    prompts, limits = synthetic(options.prompts, model.config.vocab_size)
    print(about("torch", "transformers"))
    print(
        f"{sum(each.numel() for each in model.parameters()):,} parameters in {'bf16' if options.half else 'fp32'}, "
        f"{options.threads} threads, batches of {options.batch}; way found: {find_way(model, device)}"
    )
    print(f"{len(prompts)} prompts of {len(prompts[0])} to {len(prompts[-1])} tokens, answers of {min(limits)} to "
          f"{max(limits)}, {np.mean(limits):.0f} on average")  # fmt: skip
    compare({"transformers": plain(model), "ours": ours(model, device)}, prompts, limits, options.batch, options.rounds)


def compare(kinds: dict[str, Make], prompts: list[list[int]], limits: list[int], batch: int, rounds: int) -> None:
    """Print each kind's answers a second, round by round and in all, and whether the answers are the same."""
    taken: dict[str, list[float]] = {name: [0.0] * rounds for name in kinds}
    answers: dict[str, Answers] = {}
    for make in kinds.values():
        make(prompts[:batch], [8] * batch)  # warms up
    for number in range(rounds):
        answers = {name: [] for name in kinds}
        for start in range(0, len(prompts), batch):
            for name, make in kinds.items():  # in turns, so that other load on the machine falls on both
                began = time.perf_counter()
                answers[name] += make(prompts[start : start + batch], limits[start : start + batch])
                taken[name][number] += time.perf_counter() - began
        print(f"round {number + 1}: " + ", ".join(f"{name} {taken[name][number]:.1f} s" for name in kinds))
    base = sum(taken["transformers"])
    for name, seconds in taken.items():
        rate, tokens = (rounds * count / sum(seconds) for count in (len(prompts), sum(limits)))
        print(f"{name:<13} {rate:6.2f} answers/s {tokens:8,.0f} tokens/s  {base / sum(seconds):4.2f} times")
    same = sum(a == b for a, b in zip(answers["transformers"], answers["ours"], strict=True))
    print(f"{same} of {len(prompts)} answers are the same, token for token")


if __name__ == "__main__":
    main()
