"""Answers to judge, and judge runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.config import parse_config
from training.judging.answers import Answers, Question
from training.rundir import ResolvedInput, RunDir, RunFile


def question(prompt_id: str, answers: Mapping[str, str], reference: str | None = None, prompt: str = "") -> Question:
    messages = [{"role": "user", "content": prompt or f"What about {prompt_id}?"}]
    return Question(prompt_id, messages, reference, dict(answers))  # type: ignore[arg-type]


def given(*questions: Question) -> Answers:
    models = dict.fromkeys(model for each in questions for model in each.answers)
    return Answers(list(questions), list(models))


def rows(answers: Answers) -> list[dict[str, Any]]:
    """As a respond run writes them."""
    return [
        {
            "prompt_id": each.prompt_id, "model": model, "prompt": each.messages, "response": each.answers[model],
            "ended": True, "tokens": 3, **({} if each.reference is None else {"reference": each.reference}),
        }
        for each, model in answers.each()
    ]  # fmt: skip


def judge_run(
    folder: Path, answers: Answers | Sequence[Mapping[str, Any]], inputs: Mapping[str, str] | None = None,
    attempt: int = 1, **settings: Any,
) -> tuple[RunDir, RunFile]:  # fmt: skip
    """A run directory as the worker leaves it. `inputs`: a path or an address by reference."""
    content = {"stage": "judge", "precision": "fp32", **settings}
    parse_config(dict(content))
    found = {
        text: ResolvedInput(reference=text, **({"url": place} if place.startswith("http") else {"path": place}))
        for text, place in (inputs or {}).items()
    }
    run_dir = RunDir(folder)
    run_dir.create()
    lines = rows(answers) if isinstance(answers, Answers) else answers
    run_dir.given_responses.write_text("".join(json.dumps(row) + "\n" for row in lines))
    run = RunFile(
        run_id=1, name="judge", experiment="tests", stage="judge", attempt=attempt, config=content, inputs=found,
        prompt_set="held_out", responses=str(run_dir.given_responses),
    )  # fmt: skip
    run_dir.write_config(run)
    return run_dir, run


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
