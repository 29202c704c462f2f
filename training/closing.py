"""What every training stage does after its steps: leave the model of the best eval behind, for others to load."""

from __future__ import annotations

from typing import Any

from training import checkpoint
from training.config import TrainingConfig
from training.export import export_model, model_card
from training.journal import Journal
from training.loading import Loaded
from training.rundir import RunDir, RunFile
from training.tokenizer import reload_warnings


def leave_model(
    config: TrainingConfig, run: RunFile, loaded: Loaded, tokenizer: Any, state: checkpoint.TrainState,
    run_dir: RunDir, journal: Journal,
) -> None:  # fmt: skip
    """Write `model/`: the weights of the best eval, or of the last step where there is none. Uses the model up."""
    journal.status("saving the model", step=state.step)
    step, eval_loss = load_best(loaded, state, run_dir, journal)
    facts = {
        "Steps": state.step,
        "Taken from step": step,
        "Eval loss there": "not measured" if eval_loss is None else f"{eval_loss:.4f}",
        "Parameters": loaded.parameters,
    }
    card = model_card(config, run.name, run.experiment, facts)
    hashes = export_model(loaded, tokenizer, card, run_dir)
    for warning in reload_warnings(run_dir.model):
        journal.log(warning, "warning")
    inputs = {reference: found.sha256 for reference, found in run.inputs.items()}
    journal.artifact("model", "model", files=hashes, step=step, eval_loss=eval_loss, inputs=inputs)
    journal.status("finished", step=state.step)


def load_best(
    loaded: Loaded, state: checkpoint.TrainState, run_dir: RunDir, journal: Journal
) -> tuple[int, float | None]:
    """Put the best step's weights into the model, or leave the last one's where no better can be had.

    Returns that step, and the eval loss there; None where it was not measured.
    """
    last = state.step, state.eval_loss if state.evaluated == state.step else None
    if state.best_step is None or state.best_step == state.step:
        return last
    place = checkpoint.place_of(run_dir, state.best_step)
    try:
        checkpoint.load_weights(checkpoint.check(place), loaded.model)
    except checkpoint.Damaged as reason:
        journal.log(f"The best checkpoint {place.name} is damaged ({reason}): the last step is used.", "warning")
        return last
    return state.best_step, state.best_eval_loss
