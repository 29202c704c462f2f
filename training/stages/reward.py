"""A reward model (Bradley & Terry 1952; Ouyang et al. 2022): a model learns to score answers as people prefer them.

    P(chosen is better) = sigmoid(reward(chosen) - reward(rejected))
    loss                = - log P, the mean over a step's pairs

The reward is a linear score of the state at the answer's last token, in place of the vocabulary's projection. Only
differences between answers to one prompt mean something: a constant may be added to all rewards of a prompt.

What it does: starts from any causal language model, best from the SFT model whose answers it is to judge; the prompt of
a pair goes through the model once; calibration at every eval; LoRA; early stopping; exact resume. `model/` is what
transformers' AutoModelForSequenceClassification loads.
What it does not: several GPUs; degrees of preference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batches import MicroBatch, micro_batches
from training.calibration import calibration_error
from training.closing import leave_model
from training.config import RewardConfig
from training.device import choose_device
from training.errors import Stopped
from training.journal import Journal
from training.loading import as_reward_model, prepare_for_training
from training.loop import Loop
from training.losses import reward_loss
from training.opening import micro_batch, open_model
from training.pair_forward import PairForward, prepare_pair_forward
from training.preparation import PreparedPairs, find_model, model_identity, prepare_pairs
from training.room import check_room
from training.rundir import RunDir, RunFile


def run(config: RewardConfig, run: RunFile, run_dir: RunDir, journal: Journal, stop: Callable[[], bool]) -> None:
    """Train, and leave `model/` behind. Raises TrainingError, or Stopped with the checkpoint saved."""
    # 1. The pairs, as tokens.
    source = find_model(config, run, run_dir, journal)
    prepared = prepare_pairs(config, run, source, run_dir, journal)
    if stop():
        raise Stopped

    # 2. The model with a head that scores, on its device.
    journal.status("loading the model")
    loaded = open_model(source, prepared.tokenizer, run.inputs.get(config.model), config.seed)
    loaded = as_reward_model(loaded, config.seed)
    device = choose_device(config.precision, loaded.parameters)
    forward, how = prepare_pair_forward(loaded.model, device, config.max_length)
    prepare_for_training(loaded, config, device)
    check_room(loaded, config, run_dir)
    first_limit = micro_batch(config, loaded, device)
    journal.log(f"{loaded.parameters:,} parameters, {loaded.trained:,} of them trained, on {device.describe()}.")
    journal.log(f"{how} Micro-batches hold {first_limit.describe()}.")

    # 3. The steps.
    task = RewardTask(prepared, forward)
    loop = Loop(config, task, loaded, device, run_dir, journal, stop, sample_every=None)
    loop.resume(model_identity(source, run.inputs.get(config.model)), prepared.fingerprint(), first_limit)
    state = loop.run()

    # 4. The model of the best eval, for others to judge with.
    leave_model(config, run, loaded, prepared.tokenizer, state, run_dir, journal)


class RewardTask:
    """Preference pairs, scored (training.loop.Task)."""

    def __init__(self, prepared: PreparedPairs, forward: PairForward) -> None:
        self._prepared, self._forward = prepared, forward
        self.lengths: NDArray[np.int64] = forward.lengths(prepared.train)
        self.padded = forward.padded
        self.has_eval = len(prepared.held_back) > 0

    def weight(self, examples: Sequence[int]) -> int:
        return len(examples)

    def parts(self, examples: Sequence[int], total: int, step: int) -> dict[str, Tensor]:
        rewards = self._forward.rewards(self._prepared.train, examples)
        return {key: each.sum() / total for key, each in measure(rewards).items()}

    def evaluate(self, limit: MicroBatch, pause: Callable[[], None]) -> dict[str, float]:
        pairs = self._prepared.held_back
        found: list[Tensor] = []
        for chosen in micro_batches(range(len(pairs)), self._forward.lengths(pairs), limit, self.padded):
            pause()
            found.append(self._forward.rewards(pairs, chosen).cpu())
        rewards = torch.cat(found)
        values = {f"eval_{key}": float(each.mean()) for key, each in measure(rewards).items()}
        margins = (rewards[:, 0] - rewards[:, 1]).double().numpy()
        return values | {"eval_calibration_error": calibration_error(margins)}

    def sample(self, step: int) -> dict[str, float]:
        return {}  # it scores answers and writes none


def measure(rewards: Tensor) -> dict[str, Tensor]:
    """The loss and what else is to be seen of pairs, each (N,). rewards (N, 2)."""
    seen = rewards.detach()
    return {
        "loss": reward_loss(rewards),
        "accuracy": (seen[:, 0] > seen[:, 1]).float(),
        "margin": seen[:, 0] - seen[:, 1],
        "reward_chosen": seen[:, 0],
        "reward_rejected": seen[:, 1],
    }
