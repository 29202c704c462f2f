"""Small models, data and runs for the tests of training: a step takes milliseconds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from training.config import parse_config
from training.errors import Stopped
from training.journal import Journal, Record, read_lines
from training.rundir import ResolvedInput, RunDir, RunFile
from training.tokenizer import save_tokenizer, train_tokenizer

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def chats(count: int, turns: int = 2) -> list[dict[str, Any]]:
    """Sums in words, of different lengths; every other chat goes on for `turns` questions."""
    rows = []
    for index in range(count):
        messages: list[dict[str, str]] = []
        for turn in range(turns if index % 2 else 1):
            a, b = (index + turn) % 7, (index // 7 + turn) % 6
            extra = "please " * (index % 5)
            messages.append({"role": "user", "content": f"What is {extra}{WORDS[a]} plus {WORDS[b]}, number {index}?"})
            messages.append({"role": "assistant", "content": f"It is {WORDS[a + b]}. " * (1 + index % 3)})
        rows.append({"messages": messages})
    return rows


def write_chats(path: Path, count: int = 64, turns: int = 2) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in chats(count, turns)))
    return path


def pairs(count: int) -> list[dict[str, Any]]:
    """Sums in words: the chosen answer is right, the rejected one wrong; every third prompt has an earlier turn."""
    rows = []
    for index in range(count):
        a, b = index % 7, index // 7 % 6
        earlier = [{"role": "user", "content": "Do you add?"}, {"role": "assistant", "content": "I do."}]
        question = f"What is {'please ' * (index % 4)}{WORDS[a]} plus {WORDS[b]}, number {index}?"
        chosen, rejected = f"It is {WORDS[a + b]}. " * (1 + index % 3), f"It is {WORDS[(a + b + 5) % 13]}."
        prompt = [*(earlier if index % 3 == 0 else []), {"role": "user", "content": question}]
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def write_pairs(path: Path, count: int = 48) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs(count)))
    return path


def make_model(folder: Path, kind: str = "qwen2", seed: int = 0, **changes: Any) -> Path:
    """Save a random model of a kind with a tokenizer trained on the chats. Weights large enough for attention to matter."""
    tokenizer = train_tokenizer([m["content"] for row in chats(64) for m in row["messages"]], 300)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 256,
        "initializer_range": 0.15, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | changes)))
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


FEW: dict[str, Any] = {
    "max_steps": 6, "batch_size": 8, "eval_every": 100, "save_every": 100, "max_length": 128, "eval_fraction": 0.1,
    "learning_rate": 3e-3, "precision": "fp32",
}  # fmt: skip
"""Settings of a run that takes a second."""


def make_run(
    folder: Path, model: Path | str, data: Path, attempt: int = 1, stage: str = "sft", shared: Path | None = None,
    **settings: Any,
) -> tuple[RunDir, RunFile]:  # fmt: skip
    """A run directory with its config.json, as the worker writes it."""
    model = f"path:{model}" if isinstance(model, Path) else model
    few = FEW if stage == "reward" else {**FEW, "sample_count": 0}
    content = {"stage": stage, "model": model, "dataset": [f"path:{data}"], **few, **settings}
    config = parse_config(dict(content))
    inputs = {
        text: ResolvedInput(reference=text, path=text.removeprefix("path:"))
        for _, text in config.references()
        if text.startswith("path:")
    }
    run = RunFile(
        run_id=1, name="try", experiment="tests", stage=stage, attempt=attempt, config=content, inputs=inputs,
        shared=None if shared is None else str(shared),
    )  # fmt: skip
    run_dir = RunDir(folder)
    run_dir.create()
    run_dir.write_config(run)
    return run_dir, run


class StopAfter:
    """A wish to stop that comes with the n-th time that the stage asks."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def train(run_dir: RunDir, run: RunFile, stop_after: int | None = None) -> bool:
    """Run the stage in this process. Returns whether it was stopped."""
    config = parse_config(dict(run.config))
    stage = importlib.import_module(f"training.stages.{config.stage}")
    journal = Journal(run_dir.journal, run.attempt)
    try:
        stage.run(config, run, run_dir, journal, StopAfter(stop_after) if stop_after is not None else lambda: False)
    except Stopped:
        return True
    finally:
        journal.close()
    return False


def records(run_dir: RunDir, kind: str = "") -> list[Record]:
    lines = read_lines(run_dir.journal, 0).lines
    assert all(isinstance(line, Record) for line in lines)
    return [line for line in lines if isinstance(line, Record) and (not kind or line.kind == kind)]


def metrics(run_dir: RunDir, *keys: str) -> dict[tuple[int, str], float]:
    """The metrics that stand, by step and name, as the pages show them.

    A later attempt takes away what earlier ones wrote behind its own first step; where both wrote one, it counts.
    """
    found: dict[tuple[int, str], float] = {}
    attempt = 0
    for record in records(run_dir, "metrics"):
        step = record.step or 0
        if record.attempt != attempt:
            attempt = record.attempt
            found = {place: value for place, value in found.items() if place[0] <= step}
        found |= {(step, key): value for key, value in record.body["values"].items() if not keys or key in keys}
    return found


PAIRS = ("loss", "accuracy", "margin", "reward_chosen", "reward_rejected", "logp_chosen", "logp_rejected", "clamped")
EXACT = (
    *PAIRS, *(f"eval_{key}" for key in PAIRS), "eval_calibration_error", "beta", "kl", "answer_length", "answers_ended",
    "learning_rate", "grad_norm", "tokens", "epoch",
)  # fmt: skip
"""The metrics that a resumed run must have to the last bit: the others measure the machine."""


def logs(run_dir: RunDir) -> str:
    return "\n".join(record.body["message"] for record in records(run_dir, "log"))


def state_of(run_dir: RunDir, step: int) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads((run_dir.checkpoints / f"step-{step:06d}" / "state.json").read_bytes())
    return content
