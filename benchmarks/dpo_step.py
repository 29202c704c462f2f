"""How fast a step of direct preference optimisation is, against TRL's DPOTrainer.

    python -m benchmarks.dpo_step [--model small|0.5b] [--layers N] [--pairs 16] [--batch 8] [--rounds 4] [--threads 2]

All train the same fresh Qwen2-shaped model on the same synthetic pairs, in the same order, in turns on this machine, so
that other load falls on all; the median over the rounds counts. A step is what an optimizer step takes: the passes over
its pairs, clipping, AdamW. TRL's own are timed by its callbacks, without its loading of data.

- "TRL, defaults": bf16 autocast, gradient checkpointing, the reference computed at every step.
- "TRL, fp32": the same in fp32.
- "TRL, cached, no recompute": with precomputed reference log-probabilities and without gradient checkpointing; the most
  that its settings give here (`padding_free` is switched off in TRL 1.16, whatever is asked).
- "ours": as training/stages/dpo.py does it, with the reference's log-probabilities cached (as every run after the
  first finds them), or computed at every step.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset, disable_progress_bars
from transformers import PreTrainedModel, PrinterCallback, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
from trl import DPOConfig, DPOTrainer

from benchmarks.about import about
from training.batches import MicroBatch, micro_batches
from training.config import DpoConfig
from training.data.pairs import PairSet
from training.device import Device, cpu_multiplies_bf16
from training.losses import dpo_loss
from training.model_files import NEW_SHAPES
from training.optimizer import clip_gradient, make_optimizer
from training.pair_forward import prepare_pair_forward
from training.tokenizer import train_tokenizer

LONGEST = 512
BETA = 0.1
Round = Callable[[], float]
"""Trains on all pairs once, step by step. Gives the seconds that its steps took."""


def synthetic(count: int, vocabulary: int) -> PairSet:
    """Pairs of log-normal lengths, as chats have them: prompts of 137 tokens, answers of 207 and 195 on average."""
    draw = np.random.default_rng(0)
    prompt = np.clip(draw.lognormal(4.6, 0.9, count), 8, 400).astype(np.int64)
    chosen, rejected = (np.clip(draw.lognormal(mean, 0.7, count), 8, 500).astype(np.int64) for mean in (5.3, 5.2))
    lengths = np.stack([prompt, np.minimum(chosen, LONGEST - prompt), np.minimum(rejected, LONGEST - prompt)], 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    scored = np.repeat(np.tile([False, True, True], count), lengths.flatten())
    ids = draw.integers(0, vocabulary, offsets[-1]).astype(np.int32)
    return PairSet(ids, scored, offsets, np.arange(count))


def ours(model: PreTrainedModel, pairs: PairSet, batch: int, half: bool, cached: bool) -> Round:
    """Steps as training/loop.py and training/stages/dpo.py make them."""
    device = Device(torch.device("cpu"), half)
    reference, _ = prepare_pair_forward(copy.deepcopy(model), device, LONGEST)
    forward, _ = prepare_pair_forward(model, device, LONGEST)
    config = DpoConfig(model="new:small", dataset=["data:pairs"], learning_rate=1e-6)
    optimizer = make_optimizer(model, config, device.torch)
    lengths = forward.lengths(pairs)

    @torch.no_grad()
    def said(chosen: list[int]) -> torch.Tensor:
        return reference.logprobs(pairs, chosen)

    kept = {index: said([index]) for index in range(len(pairs))} if cached else {}

    def step(examples: list[int]) -> None:
        for chosen in micro_batches(examples, lengths, MicroBatch(tokens=4096), forward.padded):
            before = torch.cat([kept[each] for each in chosen]) if cached else said(chosen)
            ratios = forward.logprobs(pairs, chosen) - before
            (dpo_loss(ratios[:, 0] - ratios[:, 1], BETA).sum() / len(examples)).backward()
        clip_gradient(model, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def run() -> float:
        model.train()
        began = time.perf_counter()
        for start in range(0, len(pairs), batch):
            step(list(range(start, min(start + batch, len(pairs)))))
        return time.perf_counter() - began

    return run


class _Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Adds up the time between the beginning and the end of TRL's steps."""

    seconds = 0.0
    _began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.perf_counter() - self._began


class _Coded(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on pairs that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def trl(model: PreTrainedModel, pairs: PairSet, batch: int, folder: str, **settings: Any) -> Round:
    """Steps as TRL makes them, on the same batches."""
    arguments = DPOConfig(
        output_dir=folder, per_device_train_batch_size=batch, num_train_epochs=1, beta=BETA, max_length=LONGEST,
        train_sampling_strategy="sequential", use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        logging_strategy="no", **settings,
    )  # fmt: skip
    rows = [
        dict(
            zip(("prompt_ids", "chosen_ids", "rejected_ids"), (pairs.ids[part].tolist() for part in parts), strict=True)
        )
        for parts in map(pairs.parts, range(len(pairs)))
    ]
    watch = _Stopwatch()
    trainer = _Coded(
        model, copy.deepcopy(model), arguments, train_dataset=Dataset.from_list(rows),
        processing_class=train_tokenizer(["a few words"], 300), callbacks=[watch],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)

    def run() -> float:
        watch.seconds = 0.0
        trainer.train()
        return watch.seconds

    return run


def build(name: str, layers: int | None) -> PreTrainedModel:
    """A model with random weights, in fp32."""
    torch.manual_seed(0)
    settings = NEW_SHAPES["small"].config()
    if name == "0.5b":
        settings |= {
            "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2,
            "vocab_size": 151_936, "num_hidden_layers": 2,
        }  # fmt: skip
    del settings["model_type"]
    if layers is not None:
        settings["num_hidden_layers"] = layers
    return Qwen2ForCausalLM(Qwen2Config(**settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["small", "0.5b"], default="small")
    parser.add_argument("--layers", type=int, help="default: 6, and 2 for 0.5b (which has 24)")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    disable_progress_bars()
    model = build(options.model, options.layers)
    pairs = synthetic(options.pairs, model.config.vocab_size)
    means = ", ".join(f"{value:.0f}" for value in pairs.part_lengths.mean(0))
    print(about("torch", "transformers", "trl"))
    print(f"{options.threads} threads, CPU multiplies bf16: {cpu_multiplies_bf16()}, load {os.getloadavg()[0]:.1f}")
    print(f"{model.num_parameters():,} parameters, {model.config.num_hidden_layers} layers; {len(pairs)} pairs")
    print(f"of {means} tokens (prompt, chosen, rejected), {options.batch} a step; median of {options.rounds} rounds")

    with tempfile.TemporaryDirectory() as folder:
        common = pairs, options.batch
        fast: dict[str, Any] = {"precompute_ref_log_probs": True, "gradient_checkpointing": False}
        rounds: dict[str, Round] = {
            "TRL, defaults": trl(copy.deepcopy(model), *common, folder),
            "TRL, cached, no recompute": trl(copy.deepcopy(model), *common, folder, **fast),
            "ours, bf16, with reference": ours(copy.deepcopy(model), *common, half=True, cached=False),
            "ours, bf16, cached": ours(copy.deepcopy(model), *common, half=True, cached=True),
            "TRL, fp32": trl(copy.deepcopy(model), *common, folder, bf16=False),
            "TRL, fp32, cached, no recompute": trl(copy.deepcopy(model), *common, folder, bf16=False, **fast),
            "ours, fp32, with reference": ours(copy.deepcopy(model), *common, half=False, cached=False),
            "ours, fp32, cached": ours(copy.deepcopy(model), *common, half=False, cached=True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in rounds}
        for number in range(options.rounds + 1):
            for name, run in rounds.items():
                took = run()
                if number:  # the first warms up
                    seconds[name].append(took)
    base = "TRL, defaults"
    for name, each in seconds.items():
        base = name if name in {"TRL, defaults", "TRL, fp32"} else base
        ratio = statistics.median(first / own for first, own in zip(seconds[base], each, strict=True))
        print(f"{name:<32} {len(pairs) / statistics.median(each):7.2f} pairs/s  {ratio:5.2f} times {base}")


if __name__ == "__main__":
    main()
