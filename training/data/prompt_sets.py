"""The prompts that a model is to answer, from any reference that a `prompts` setting may hold. No torch here."""

from __future__ import annotations

from training.commits import Commits
from training.data.examples import SetPrompt
from training.data.held_out import held_out_prompts
from training.data.sources import load_prompt_rows
from training.journal import Journal
from training.references import parse_reference
from training.rundir import RunDir, RunFile

__all__ = ["SetPrompt", "load_prompts"]


def load_prompts(reference_text: str, run: RunFile, run_dir: RunDir, journal: Journal) -> list[SetPrompt]:
    """The prompts of `held_out`, `data:`, `path:` or `hf:`, in the set's order; their ids are distinct.

    Rows of prompts have ids of their own. Of a chat its beginning up to the first answer is taken, of a pair its
    prompt: their id is made of their content, and equal ones count once.

    Raises DataError, InputError, HubError.
    """
    if parse_reference(reference_text).kind == "held_out":
        return held_out_prompts(run, run_dir, journal)
    return load_prompt_rows(reference_text, run.inputs, journal, Commits(run_dir.commits), "prompts")
