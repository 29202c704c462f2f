"""A small model that has learnt to write sums and to answer them, a judge for it, and augment runs with both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

from tests.training.small import WORDS, make_model, make_run, train
from training.config import parse_config
from training.rundir import HeldOut, ResolvedInput, RunDir, RunFile

ASK = "Another like: {prompt}"
FEW: dict[str, Any] = {
    "fraction": 0.4, "new_prompts": 2, "candidates": 3, "temperature": 1.5, "max_new_tokens": 40, "precision": "fp32",
    "micro_batch_size": 8, "max_prompt_similarity": 1.0, "max_answer_similarity": 1.0,
}  # fmt: skip
"""Settings of a run that takes a second or two."""


def question(index: int) -> str:
    return f"What is {WORDS[index % 7]} plus {WORDS[index // 7 % 6]}?"


def sums(count: int = 42) -> list[dict[str, Any]]:
    """Pairs, each with a prompt of its own."""
    rows = []
    for index in range(count):
        right, wrong = WORDS[index % 7 + index // 7 % 6], WORDS[(index % 7 + index // 7 % 6 + 5) % 13]
        rows.append({"prompt": question(index), "chosen": f"It is {right}.", "rejected": f"It is {wrong}.", "n": index})
    return rows


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def make_writer(folder: Path) -> Path:
    """A model that answers sums, and writes another where it is asked to: 240 steps of SFT."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(42):
        other = question((index * 5 + 3) % 42)
        answer = f"It is {WORDS[index % 7 + index // 7 % 6]}."
        for asked, said in ((question(index), answer), (ASK.replace("{prompt}", question(index)), other)):
            rows.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]})
    base, data = make_model(folder / "base"), write_lines(folder / "chats.jsonl", rows)
    run_dir, run = make_run(
        folder / "sft", base, data, max_steps=240, eval_fraction=0.0, learning_rate=1e-2, lr_schedule="linear"
    )
    train(run_dir, run)
    return run_dir.model


def make_judge(folder: Path, model: Path) -> Path:
    """A reward model, trained for a few steps."""
    folder.mkdir(parents=True, exist_ok=True)
    run_dir, run = make_run(folder / "reward", model, write_lines(folder / "pairs.jsonl", sums()), stage="reward")
    train(run_dir, run)
    return run_dir.model


def make_augment(
    folder: Path, model: str, data: Path, judge: str, attempt: int = 1, held_out: HeldOut | None = None,
    urls: dict[str, str] | None = None, **settings: Any,
) -> tuple[RunDir, RunFile]:  # fmt: skip
    """A run directory with its config.json, as the worker writes it. `urls`: of endpoints, by their names."""
    content = {"stage": "augment", "model": model, "dataset": [f"path:{data}"], "judge": judge, **FEW, **settings}
    config = parse_config(dict(content))
    inputs: dict[str, ResolvedInput] = {}
    for text in [text for _, text in config.references()] + ([held_out.dataset] if held_out else []):
        kind, _, name = text.partition(":")
        if kind == "path":
            inputs[text] = ResolvedInput(reference=text, path=name)
        elif kind == "api":
            inputs[text] = ResolvedInput(reference=text, url=(urls or {})[name.partition("/")[0]])
        else:
            inputs[text] = ResolvedInput(reference=text)
    run = RunFile(
        run_id=1, name="augment", experiment="tests", stage="augment", attempt=attempt, config=content, inputs=inputs,
        held_out=held_out,
    )  # fmt: skip
    run_dir = RunDir(folder)
    run_dir.create()
    run_dir.write_config(run)
    return run_dir, run


def outputs(run_dir: RunDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run_dir.outputs.iterdir())}
