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

from training.batches import MicroBatch, micro_batches
from training.closing import leave_model
from training.config import SftConfig
from training.device import choose_device
from training.errors import Stopped
from training.forward import Forward, prepare_forward, scored_count
from training.journal import Journal
from training.loading import prepare_for_training
from training.loop import Loop
from training.losses import sft_loss
from training.opening import micro_batch, open_model
from training.preparation import Prepared, find_model, model_identity, prepare
from training.room import check_room
from training.rundir import RunDir, RunFile
from training.samples import measured, show_samples


def run(config: SftConfig, run: RunFile, run_dir: RunDir, journal: Journal, stop: Callable[[], bool]) -> None:
    """Train, and leave `model/` behind. Raises TrainingError, or Stopped with the checkpoint saved."""
    # 1. The data, as tokens.
    source = find_model(config, run, run_dir, journal)
    prepared = prepare(config, run, source, run_dir, journal)
    if stop():
        raise Stopped

    # 2. The model, on its device.
    journal.status("loading the model")
    loaded = open_model(source, prepared.tokenizer, run.inputs.get(config.model), config.seed)
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

    # 4. The model of the best eval, for others to load.
    leave_model(config, run, loaded, prepared.tokenizer, state, run_dir, journal)


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
        forward, prepared = self._forward, self._prepared
        answers = show_samples(
            step, prepared.prompts, forward.model, prepared.tokenizer, forward.device, self._config.sample_tokens,
            self._journal,
        )  # fmt: skip
        return measured(answers)
