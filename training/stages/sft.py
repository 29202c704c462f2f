"""Supervised fine-tuning: a model learns to write the assistant's turns of chats, or plain text.

    loss = - mean over the scored tokens t of a step's examples of log p(t | all tokens before it in its example)

What it does: any causal language model of transformers, or a new one; loss on the assistant's tokens only; examples
packed end to end without seeing each other; fp32 master weights; LoRA; early stopping; exact resume.
What it does not: several GPUs; quantised training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training import checkpoint
from training.batches import MicroBatch, micro_batches
from training.config import SftConfig
from training.device import Device, choose_device, fitting_micro_batch
from training.errors import Stopped
from training.export import export_model, model_card
from training.forward import Forward, prepare_forward, scored_count
from training.generate import generate, set_ends
from training.journal import Journal
from training.loading import Loaded, check_vocabulary, load_model, new_model, prepare_for_training, take_weights
from training.loop import Loop
from training.losses import sft_loss
from training.model_files import Shape
from training.preparation import Prepared, find_model, model_identity, prepare
from training.room import check_room
from training.rundir import RunDir, RunFile
from training.tokenizer import reload_warnings


def run(config: SftConfig, run: RunFile, run_dir: RunDir, journal: Journal, stop: Callable[[], bool]) -> None:
    """Train, and leave `model/` behind. Raises TrainingError, or Stopped with the checkpoint saved."""
    # 1. The data, as tokens.
    source = find_model(config, run, run_dir, journal)
    prepared = prepare(config, run, source, run_dir, journal)
    if stop():
        raise Stopped

    # 2. The model, on its device.
    journal.status("loading the model")
    if isinstance(source, Shape):
        loaded = new_model(source, prepared.tokenizer, config.seed)
    else:
        loaded = load_model(source)
        take_weights(loaded, run.inputs.get(config.model))
    check_vocabulary(loaded.model, prepared.tokenizer)
    set_ends(loaded.model, prepared.tokenizer)
    device = choose_device(config.precision, loaded.parameters)
    forward, how = prepare_forward(loaded.model, device, config.max_length, config.packing)
    prepare_for_training(loaded, config, device)
    check_room(loaded, config, run_dir)
    first_limit = micro_batch(config, loaded, device)
    journal.log(f"{loaded.parameters:,} parameters, {loaded.trained:,} of them trained, on {device.describe()}.")
    journal.log(f"{how} Micro-batches hold {first_limit.describe()}.")

    # 3. The steps.
    task = SftTask(config, prepared, forward, journal)
    loop = Loop(config, task, loaded, device, run_dir, journal, stop, config.sample_every)
    loop.resume(model_identity(source, run.inputs.get(config.model)), prepared.fingerprint(), first_limit)
    state = loop.run()

    # 4. The model of the best eval, or of the last step where there is none, for others to load.
    journal.status("saving the model", step=state.step)
    step, eval_loss = load_best(loaded, state, run_dir, journal)
    facts = {
        "Steps": state.step,
        "Taken from step": step,
        "Eval loss there": "not measured" if eval_loss is None else f"{eval_loss:.4f}",
        "Parameters": loaded.parameters,
    }
    card = model_card(config, run.name, run.experiment, facts)
    hashes = export_model(loaded, prepared.tokenizer, card, run_dir)
    for warning in reload_warnings(run_dir.model):
        journal.log(warning, "warning")
    inputs = {reference: found.sha256 for reference, found in run.inputs.items()}
    journal.artifact("model", "model", files=hashes, step=step, eval_loss=eval_loss, inputs=inputs)
    journal.status("finished", step=state.step)


class SftTask:
    """Next-token prediction on the scored tokens (training.loop.Task)."""

    def __init__(self, config: SftConfig, prepared: Prepared, forward: Forward, journal: Journal) -> None:
        self._config, self._prepared, self._forward, self._journal = config, prepared, forward, journal
        self.lengths: NDArray[np.int64] = prepared.train.lengths
        self.padded = forward.attention is None
        self.has_eval = len(prepared.held_back) > 0

    def weight(self, examples: Sequence[int]) -> int:
        return scored_count(self._prepared.train, examples)

    def parts(self, examples: Sequence[int], total: int, step: int) -> dict[str, Tensor]:
        return {"loss": sft_loss(self._forward.logprobs(self._prepared.train, examples), total)}

    def evaluate(self, limit: MicroBatch, pause: Callable[[], None]) -> dict[str, float]:
        tokens = self._prepared.held_back
        total = 0.0
        for chosen in micro_batches(range(len(tokens)), tokens.lengths, limit, self.padded):
            pause()
            total += float(self._forward.logprobs(tokens, chosen).sum())
        return {"eval_loss": -total / scored_count(tokens, range(len(tokens)))}

    def sample(self, step: int) -> dict[str, float]:
        prompts, tokenizer = self._prepared.prompts, self._prepared.tokenizer
        ids = [prompt.ids for prompt in prompts]
        answers = generate(self._forward.model, tokenizer, self._forward.device, ids, self._config.sample_tokens)
        for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            self._journal.sample(step, index, prompt.text, answer.text, answer.ended)
        return {}


def micro_batch(config: SftConfig, loaded: Loaded, device: Device) -> MicroBatch:
    """What the config says, else what fits the device."""
    if config.micro_batch_size is not None:
        return MicroBatch(examples=config.micro_batch_size)
    shape = loaded.model.config.get_text_config()
    hidden = shape.hidden_size
    wide = getattr(shape, "intermediate_size", None) or 4 * hidden
    return fitting_micro_batch(
        device, shape.num_hidden_layers, hidden, wide, loaded.parameters, loaded.trained, config.gradient_checkpointing
    )


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
