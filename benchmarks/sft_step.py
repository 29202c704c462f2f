"""How fast a supervised step is, against a plain padded loop of transformers, and what a journal line costs of it.

    python -m benchmarks.sft_step [--steps 6] [--shape small] [--threads 2]

Both train the same fresh Qwen2-shaped model on the same synthetic chats, whose lengths vary as real ones do, in turns
on this machine: steps of 16 examples, AdamW, clipping. The plain loop pads each batch to its longest example, asks
transformers for the loss with labels, and computes in fp32, as transformers does on a CPU unless told otherwise; ours
is measured in fp32 too, and in bf16 with fp32 master weights.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from training.batches import MicroBatch, micro_batches
from training.data.encoding import TokenSet
from training.device import Device, cpu_multiplies_bf16
from training.forward import prepare_forward, scored_count
from training.journal import Journal
from training.losses import sft_loss
from training.model_files import NEW_SHAPES

BATCH = 16
Step = Callable[[int], int]


def synthetic(count: int, vocabulary: int) -> TokenSet:
    """Chats of 20 to 512 tokens, log-normal as real ones are; the last 60 % of each is scored."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(5.0, 0.6, count).astype(np.int64), 20, 512)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    scored = np.concatenate([np.arange(length) >= 0.4 * length for length in lengths])
    ids = draw.integers(0, vocabulary, offsets[-1]).astype(np.int32)
    return TokenSet(ids, scored, offsets, np.arange(count))


def ours(model: PreTrainedModel, tokens: TokenSet, half: bool) -> Step:
    """A step as training/loop.py makes it. Gives the tokens that it trained on."""
    forward, _ = prepare_forward(model, Device(torch.device("cpu"), half), 512, packing=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def step(number: int) -> int:
        chosen = list(range(number * BATCH, (number + 1) * BATCH))
        total = scored_count(tokens, chosen)
        for part in micro_batches(chosen, tokens.lengths, MicroBatch(tokens=4096), padded=False):
            sft_loss(forward.logprobs(tokens, part), total).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return int(tokens.lengths[chosen].sum())

    return step


def plain(model: PreTrainedModel, tokens: TokenSet) -> Step:
    """The same step as most would write it with transformers."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.train()

    def step(number: int) -> int:
        examples = [tokens[index] for index in range(number * BATCH, (number + 1) * BATCH)]
        longest = max(len(ids) for ids, _ in examples)
        ids = torch.zeros(BATCH, longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, (example, scored) in enumerate(examples):
            ids[row, : len(example)] = torch.from_numpy(example)
            mask[row, : len(example)] = 1
            labels[row, : len(example)] = torch.from_numpy(np.where(scored, example, -100))
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return sum(len(example) for example, _ in examples)

    return step


def journal_line_seconds(lines: int = 20_000) -> float:
    """Mean time of one step's metrics line."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl", 1)
        began = time.perf_counter()
        for step in range(lines):
            journal.metrics(
                step, loss=3.14159 / (step + 1), learning_rate=1e-4, grad_norm=1.25, tokens=step * 4096,
                tokens_per_second=7125.5, epoch=step / lines, memory=1 << 30, utilisation=0.97,
            )  # fmt: skip
        took = time.perf_counter() - began
        journal.close()
    return took / lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--shape", choices=sorted(NEW_SHAPES), default="small")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    settings = NEW_SHAPES[options.shape].config()
    del settings["model_type"]
    model = Qwen2ForCausalLM(Qwen2Config(**settings))
    tokens = synthetic((options.steps + 1) * BATCH, model.config.vocab_size)
    print(f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, bf16: {cpu_multiplies_bf16()}")
    print(f"{sum(each.numel() for each in model.parameters()):,} parameters, {BATCH} examples a step")

    kinds: dict[str, Step] = {
        "transformers, padded, fp32": plain(copy.deepcopy(model), tokens),
        "ours, packed, fp32": ours(copy.deepcopy(model), tokens, half=False),
        "ours, packed, bf16": ours(copy.deepcopy(model), tokens, half=True),
    }
    seconds = dict.fromkeys(kinds, 0.0)
    trained = dict.fromkeys(kinds, 0)
    for number in range(options.steps + 1):
        for name, step in kinds.items():  # in turns, so that other load on the machine falls on all
            began = time.perf_counter()
            count = step(number)
            if number:  # the first warms up
                seconds[name] += time.perf_counter() - began
                trained[name] += count
    speed = {name: trained[name] / seconds[name] for name in kinds}
    base = next(iter(speed.values()))
    for name, value in speed.items():
        print(f"{name:<28} {value:>8,.0f} tokens/s  {value / base:4.2f} times")
    line = journal_line_seconds()
    step_time = min(seconds.values()) / options.steps
    print(f"one journal line: {line * 1e6:.1f} us, {line / step_time:.4%} of our fastest step ({step_time:.2f} s)")


if __name__ == "__main__":
    main()
