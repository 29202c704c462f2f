"""Direct preference optimisation (Rafailov et al. 2023): a model learns to prefer the better of two answers.

    log-ratio(y) = log pi(y | x) - log pi_ref(y | x)          summed over the answer's tokens
    margin       = log-ratio(chosen) - log-ratio(rejected)    clamped where asked for
    loss         = - log sigmoid(beta margin)                 equation 7; mean over a step's pairs

What it does: the reference reads every pair once, before the first step, and what it says is kept for other runs; the
prompt of a pair goes through the model once, for both answers; beta may rise from 0 in a line; conservative DPO, IPO
and log-ratios per token; fp32 master weights; LoRA; early stopping; exact resume.
What it does not: several GPUs; a reference that moves; more than two answers to a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batches import MicroBatch, micro_batches
from training.closing import leave_model
from training.config import DpoConfig
from training.data.pairs import PairSet
from training.device import choose_device
from training.errors import Stopped
from training.journal import Journal
from training.kl import answer_logits, token_kl
from training.loading import prepare_for_training
from training.loop import Loop
from training.losses import cdpo_loss, clamped, dpo_loss, ipo_loss, per_token
from training.opening import micro_batch, open_model
from training.pair_forward import PairForward, prepare_pair_forward
from training.preparation import PreparedPairs, find_model, find_reference, model_identity, prepare_pairs
from training.reference import Reference, open_reference, reference_logprobs
from training.room import check_room
from training.rundir import RunDir, RunFile
from training.samples import measured, show_samples


def run(config: DpoConfig, run: RunFile, run_dir: RunDir, journal: Journal, stop: Callable[[], bool]) -> None:
    """Train, and leave `model/` behind. Raises TrainingError, or Stopped with the checkpoint saved."""
    # 1. The pairs, as tokens.
    source = find_model(config, run, run_dir, journal)
    reference_source = find_reference(config, run, source, run_dir, journal) or source
    prepared = prepare_pairs(config, run, source, run_dir, journal)
    if stop():
        raise Stopped

    # 2. The model, on its device.
    journal.status("loading the model")
    loaded = open_model(source, prepared.tokenizer, run.inputs.get(config.model), config.seed)
    device = choose_device(config.precision, loaded.parameters)
    forward, how = prepare_pair_forward(loaded.model, device, config.max_length)
    prepare_for_training(loaded, config, device)
    check_room(loaded, config, run_dir)
    first_limit = micro_batch(config, loaded, device)
    journal.log(f"{loaded.parameters:,} parameters, {loaded.trained:,} of them trained, on {device.describe()}.")
    journal.log(f"{how} Micro-batches hold {first_limit.describe()}.")

    # 3. What the reference says of every pair, once.
    reference = open_reference(config, run, reference_source, prepared.tokenizer, loaded, device)
    shared = Path(run.shared) if run.shared else run_dir.cache
    sides = (prepared.train, prepared.held_back)
    said = reference_logprobs(reference, sides, shared / "reference", first_limit, journal, stop)
    if not prepared.prompts:  # nothing is going to be measured against it
        reference.unload()

    # 4. The steps.
    task = DpoTask(config, prepared, forward, reference, said, journal)
    loop = Loop(config, task, loaded, device, run_dir, journal, stop, config.sample_every)
    identity = model_identity(source, run.inputs.get(config.model))
    loop.resume(identity, f"{prepared.fingerprint()} {reference.fingerprint()}", first_limit)
    state = loop.run()

    # 5. The model of the best eval, for others to load.
    leave_model(config, run, loaded, prepared.tokenizer, state, run_dir, journal)


def warmed_up(beta: float, step: int, warmup_steps: int) -> float:
    """Beta of a step (from 1): it rises in a line, and is whole at the warm-up's last step."""
    return beta * min(1.0, step / warmup_steps) if warmup_steps else beta


def preference_loss(config: DpoConfig, log_ratios: Tensor, lengths: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The loss of each pair, and which margins were clamped. log_ratios, lengths (N, 2); returns (N,), (N,)."""
    if config.loss in {"ipo", "sigmoid_norm"}:
        log_ratios = per_token(log_ratios, lengths)
    margins = log_ratios[:, 0] - log_ratios[:, 1]
    cut = clamped(margins, config.margin_clamp)
    if config.loss == "ipo":
        losses = ipo_loss(cut, beta)
    elif config.label_smoothing:
        losses = cdpo_loss(cut, beta, config.label_smoothing)
    else:
        losses = dpo_loss(cut, beta)
    return losses, cut != margins


class DpoTask:
    """Preference pairs, held against what the reference says of them (training.loop.Task)."""

    def __init__(
        self, config: DpoConfig, prepared: PreparedPairs, forward: PairForward, reference: Reference,
        said: Sequence[NDArray[np.float32]], journal: Journal,
    ) -> None:  # fmt: skip
        self._config, self._prepared, self._forward = config, prepared, forward
        self._reference, self._journal = reference, journal
        self._train_said, self._held_back_said = (torch.from_numpy(each).to(forward.device.torch) for each in said)
        self.lengths: NDArray[np.int64] = forward.lengths(prepared.train)
        self.padded = forward.padded
        self.has_eval = len(prepared.held_back) > 0

    def weight(self, examples: Sequence[int]) -> int:
        return len(examples)

    def parts(self, examples: Sequence[int], total: int, step: int) -> dict[str, Tensor]:
        beta = warmed_up(self._config.beta, step, self._config.beta_warmup_steps)
        values = self._measure(self._prepared.train, self._train_said, examples, beta)
        values["beta"] = torch.full((len(examples),), beta)
        return {key: each.sum() / total for key, each in values.items()}

    def evaluate(self, limit: MicroBatch, pause: Callable[[], None]) -> dict[str, float]:
        """With the full beta, during its warm-up too: evals can be compared with each other."""
        pairs = self._prepared.held_back
        sums: dict[str, float] = {}
        for chosen in micro_batches(range(len(pairs)), self._forward.lengths(pairs), limit, self.padded):
            pause()
            for key, each in self._measure(pairs, self._held_back_said, chosen, self._config.beta).items():
                sums[key] = sums.get(key, 0.0) + float(each.sum())
        return {f"eval_{key}": value / len(pairs) for key, value in sums.items()}

    def _measure(self, pairs: PairSet, said: Tensor, chosen: Sequence[int], beta: float) -> dict[str, Tensor]:
        """The loss and what else is to be seen of these pairs, each (N,). Rewards are of the full beta."""
        logprobs = self._forward.logprobs(pairs, chosen)
        log_ratios = logprobs - said[list(chosen)]
        lengths = torch.from_numpy(pairs.scored_lengths[list(chosen)]).to(log_ratios)
        losses, cut = preference_loss(self._config, log_ratios, lengths, beta)
        logprobs, rewards = logprobs.detach(), self._config.beta * log_ratios.detach()
        values = {
            "loss": losses,
            "accuracy": (rewards[:, 0] > rewards[:, 1]).float(),
            "margin": rewards[:, 0] - rewards[:, 1],
            "reward_chosen": rewards[:, 0],
            "reward_rejected": rewards[:, 1],
            "logp_chosen": logprobs[:, 0],
            "logp_rejected": logprobs[:, 1],
        }
        return values if self._config.margin_clamp is None else values | {"clamped": cut.float()}

    def sample(self, step: int) -> dict[str, float]:
        forward, prompts = self._forward, self._prepared.prompts
        answers = show_samples(
            step, prompts, forward.model, self._prepared.tokenizer, forward.device, self._config.sample_tokens,
            self._journal,
        )  # fmt: skip
        told = [(prompt.ids, answer.ids) for prompt, answer in zip(prompts, answers, strict=True) if answer.ids]
        return measured(answers) | ({"kl": self._kl(told)} if told else {})

    def _kl(self, told: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float:
        """KL(pi || pi_ref) in nats per token, along the model's own answers."""
        device = self._forward.device
        with self._reference.visiting() as reference:
            places = [
                token_kl(
                    answer_logits(self._forward.model, device, *each), answer_logits(reference.model, device, *each)
                )
                for each in told
            ]
        return float(torch.cat(places).mean())
