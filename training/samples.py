"""The answers that a model gives to a few fixed prompts while it learns, so that one can watch it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from training.device import Device
from training.generate import Answer, generate
from training.journal import Journal
from training.prompts import Prompt


def show_samples(
    step: int, prompts: Sequence[Prompt], model: Any, tokenizer: Any, device: Device, most_tokens: int, journal: Journal
) -> list[Answer]:
    """Answer the prompts greedily, and journal prompts and answers."""
    answers = generate(model, tokenizer, device, [prompt.ids for prompt in prompts], most_tokens)
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        journal.sample(step, index, prompt.text, answer.text, answer.ended)
    return answers


def measured(answers: Sequence[Answer]) -> dict[str, float]:
    """Mean length in tokens, and the share that ended by themselves; nothing where there are no answers."""
    if not answers:
        return {}
    return {
        "answer_length": fmean(answer.tokens for answer in answers),
        "answers_ended": fmean(answer.ended for answer in answers),
    }
