"""What an augment run leaves, written by hand for the tests of the app and of the worker: three prompts, two answers each."""

from __future__ import annotations

from typing import Any

import orjson

from training.augmenting.candidates import as_lines, candidate_rows
from training.augmenting.funnel import Candidate, NewPrompt, Thresholds, pair_row, sift
from training.augmenting.tally import funnel
from training.config.augment import AugmentConfig
from training.rundir import RunDir

CONFIG: dict[str, Any] = {
    "stage": "augment", "model": "api:local/teacher", "dataset": "data:prefs", "judge": "api:local/judge",
    "max_prompt_similarity": 0.9,
}  # fmt: skip
SIMILARITIES = (0.5, 0.8, 0.93)


def prompts() -> list[NewPrompt]:
    return [
        NewPrompt(
            f"p{n}", [{"role": "user", "content": f"What is new about {n}?"}], f"source{n}",
            data_similarity=similarity, data_nearest="What is old?", answer_similarity=0.4,
            candidates=(Candidate(f"Much, {n}.", True, 4, 0.75), Candidate(f"Little, {n}.", True, 4, 0.25)),
        )
        for n, similarity in enumerate(SIMILARITIES)
    ]  # fmt: skip


def leave(run_dir: RunDir, config: AugmentConfig, found: list[NewPrompt] | None = None) -> None:
    """The outputs of a finished run."""
    thresholds = Thresholds.of(config)
    sifted = sift(prompts() if found is None else found, thresholds)
    run_dir.outputs.mkdir(parents=True, exist_ok=True)
    run_dir.candidates.write_bytes(as_lines(candidate_rows(sifted)))
    run_dir.funnel.write_bytes(orjson.dumps(funnel(sifted, thresholds, config.judge_name)))
    run_dir.pairs.write_bytes(as_lines(pair_row(each) for each in sifted if each.reason is None))
    run_dir.remaining.write_text('{"prompt": "What is left?", "chosen": "This.", "rejected": "That."}\n')


SCRIPT = """
from tests.worker.synthetic import leave
from training.config import parse_config
leave(run_dir, parse_config(run.config))
"""
"""What a scripted trainer does."""
