"""The steps of a training run, whatever the stage: accumulate, clip, step, evaluate, save, and go on after a kill.

A step is a function of the run's state alone (weights, optimizer, generators, step number), and a checkpoint holds
all of that state. So a killed run that goes on from a checkpoint makes the same steps, to the last bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import checkpoint
from training.batches import MicroBatch, examples_of_step, micro_batches
from training.checkpoint import Checkpoint, TrainState
from training.config import TrainingConfig
from training.device import Device, Utilisation, is_out_of_memory
from training.errors import DataError, Diverged, ModelError, OutOfMemory, Stopped
from training.failpoints import failpoint
from training.journal import Journal
from training.loading import Loaded
from training.optimizer import clip_gradient, learning_rate, make_optimizer, set_learning_rate
from training.rundir import RunDir
from training.steps import examples_of_run, total_steps
from training.throttle import Throttle


class Task(Protocol):
    """What a stage trains on, and how it is measured."""

    lengths: NDArray[np.int64]  # tokens by training example
    padded: bool  # whether micro-batches are padded
    has_eval: bool

    def weight(self, examples: Sequence[int]) -> int:
        """What the loss over these training examples is a mean over: scored tokens, or pairs."""

    def parts(self, examples: Sequence[int], total: int, step: int) -> dict[str, Tensor]:
        """One micro-batch's share of a step's metrics; `loss` is among them, and is what the gradient is of.

        The shares of all micro-batches add up to the step's values; `total` is the step's weight.
        """

    def evaluate(self, limit: MicroBatch, pause: Callable[[], None]) -> dict[str, float]:
        """Metrics over the examples held back; `eval_loss` is among them. Calls `pause` between micro-batches."""

    def sample(self, step: int) -> dict[str, float]:
        """Show what the model can do by now. Returns what was measured of it, perhaps nothing."""


class Loop:
    """A training run's steps, from where its last checkpoint left it to its end."""

    def __init__(
        self, config: TrainingConfig, task: Task, loaded: Loaded, device: Device, run_dir: RunDir,
        journal: Journal, stop: Callable[[], bool], sample_every: int | None,
    ) -> None:  # fmt: skip
        self.config, self.task, self.device, self.run_dir, self.journal = config, task, device, run_dir, journal
        self.model = loaded.model
        self.optimizer = make_optimizer(self.model, config, device.torch)
        self.sample_every = sample_every
        self.count = len(task.lengths)
        self.total = total_steps(self.count, config.batch_size, config.epochs, config.max_steps)
        self.examples = None if config.max_steps else examples_of_run(self.count, config.epochs)
        self.state = TrainState()
        self.last: Checkpoint | None = None
        self._stop = stop
        self._progress = Throttle()
        self._busy = Utilisation(device)

    # -- from where ----------------------------------------------------------------------------------------------

    def resume(self, model: str, data: str, first_limit: MicroBatch) -> None:
        """Go on from the newest whole checkpoint, or begin. Raises ModelError, DataError where it began with others.

        `model`, `data`: the fingerprints of the model that training begins with, and of what it is trained on.
        """
        torch.manual_seed(self.config.seed)
        self._rng = checkpoint.rng_state()
        self.state = TrainState(
            model=model, data=data, micro_batch=first_limit.as_dict(), device=self.device.describe()
        )
        self.last = checkpoint.newest(self.run_dir, self.journal)
        if self.last is None:
            return
        self.state = checkpoint.load_state(self.last)
        if self.state.model != model:
            raise ModelError(
                f"The model is not what this run began with, so it cannot go on from {self.last.name}.",
                "Put the old model back and resume, or retry the run from nothing.",
                field="model",
            )
        if self.state.data != data:
            raise DataError(
                f"The data is not what this run began with, so it cannot go on from {self.last.name}.",
                "Put the old data back and resume, or retry the run from nothing.",
                field="dataset",
            )
        try:
            checkpoint.load_weights(self.last, self.model)
        except checkpoint.Damaged as reason:
            raise ModelError(
                f"The run cannot go on: {reason}.",
                "Go on with the versions of Preflab and transformers that it began with (env.json has them), "
                "or retry the run from nothing.",
                field="model",
            ) from None
        checkpoint.load_optimizer(self.last, self.model, self.optimizer)
        checkpoint.load_rng(self.last)
        self._rng = checkpoint.rng_state()
        self.journal.log(f"Goes on from {self.last.name}.")
        if self.state.device != self.device.describe():
            self.journal.log(
                f"It began on another device ({self.state.device}): the curve goes on to rounding.", "warning"
            )

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> TrainState:
        """Train to the end. Raises Stopped (having saved), Diverged, OutOfMemory, DiskFull."""
        self.journal.status("training", steps=self.total, from_step=self.state.step)
        try:
            while True:
                self._after_step()
                if self._finished:
                    return self.state
                self._step()
        except _StopAsked:
            self._save_stopped()
            raise Stopped from None

    @property
    def _finished(self) -> bool:
        return self.state.step >= self.total or self.state.stopped_early

    def _after_step(self) -> None:
        """What is due at the state's step and was not done yet: eval, samples, a checkpoint.

        Whatever draws random numbers there (a model that is loaded, a library), the next step draws as if it had not.
        """
        state, step = self.state, self.state.step
        is_best = False
        if self.task.has_eval and state.evaluated != step and self._due(self.config.eval_every):
            is_best = self._evaluate()
        if self.sample_every and state.sampled != step and (self._due(self.sample_every) or self._finished):
            self._sample()
        checkpoint.set_rng_state(self._rng)
        if step and (step % self.config.save_every == 0 or self._finished):
            self._save()
        elif is_best:
            self._save_best()

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step >= self.total

    def _step(self) -> None:
        """One optimizer step, its metrics, and the state after it."""
        began = time.monotonic()
        step = self.state.step + 1
        examples = examples_of_step(step, self.count, self.config.batch_size, self.config.seed, self.examples)
        values = self._gradient(examples)
        rate = learning_rate(step, self.total, self.config)
        norm = float(clip_gradient(self.model, self.config.max_grad_norm))
        tokens = int(self.task.lengths[examples].sum())
        values |= {"learning_rate": rate, "grad_norm": norm}
        if not (math.isfinite(values["loss"]) and math.isfinite(norm)):
            self.journal.metrics(step, **values)
            raise self._diverged("loss" if not math.isfinite(values["loss"]) else "gradient", step)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._rng = checkpoint.rng_state()
        self.state.step, self.state.tokens = step, self.state.tokens + tokens
        values |= {
            "tokens": self.state.tokens,
            "tokens_per_second": tokens / max(1e-9, time.monotonic() - began),
            "epoch": self._seen(step) / self.count,
            "memory": self.device.memory_used(),
        }
        busy = self._busy.read()
        self.journal.metrics(step, **values, **({} if busy is None else {"utilisation": busy}))
        if self._progress.ready() or self._finished:
            self.journal.progress("training", step, self.total, "steps")
        failpoint("after_step")

    def _seen(self, step: int) -> int:
        seen = step * self.config.batch_size
        return seen if self.examples is None else min(seen, self.examples)

    def _gradient(self, examples: list[int]) -> dict[str, float]:
        """Accumulate the gradient over a step's micro-batches, in smaller ones where memory runs out."""
        weight = self.task.weight(examples)
        self.model.train()
        while True:
            try:
                return self._accumulate(examples, weight)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler: the exception's frames still hold the tensors that did not fit.
            self._halve()

    def _accumulate(self, examples: list[int], weight: int) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        for chosen in micro_batches(examples, self.task.lengths, self.limit, self.task.padded):
            self._pause()
            parts = self.task.parts(chosen, weight, self.state.step + 1)
            parts["loss"].backward()
            for key, value in parts.items():
                sums[key] = sums[key] + value.detach() if key in sums else value.detach()
        return {key: float(value) for key, value in sums.items()}

    @property
    def limit(self) -> MicroBatch:
        return MicroBatch(**(self.state.micro_batch or {}))

    def _halve(self) -> None:
        self.optimizer.zero_grad()
        checkpoint.set_rng_state(self._rng)
        smaller = self.limit.halved()
        if smaller is None or (self.limit.tokens or math.inf) <= self.task.lengths.min():
            raise OutOfMemory(
                "The device has too little memory, even for one example at a time.",
                "Shorten the longest example, turn gradient checkpointing on, use LoRA, or take a smaller model.",
                step=self.state.step + 1,
                checkpoint=self.last.name if self.last else None,
            )
        if self.device.is_gpu:
            torch.cuda.empty_cache()
        self.state.micro_batch = smaller.as_dict()
        self.journal.log(f"Out of memory: micro-batches are now {smaller.describe()}.", "warning", self.state.step + 1)

    # -- measuring -----------------------------------------------------------------------------------------------

    def _evaluate(self) -> bool:
        """Measure on the examples held back, and keep count of the plateau. Returns whether it is the best yet."""
        state = self.state
        self.journal.status("evaluating", step=state.step)
        self.model.eval()
        with torch.no_grad():
            values = self.task.evaluate(self.limit, self._pause)
        self.journal.metrics(state.step, **values)
        self.journal.status("training", step=state.step)
        state.evaluated, state.eval_loss = state.step, values["eval_loss"]
        if not math.isfinite(state.eval_loss):
            raise self._diverged("eval loss", state.step)
        if state.step == 0:  # shows where it starts; there is nothing to keep yet
            return False
        if state.best_eval_loss is None or state.eval_loss < state.best_eval_loss:
            state.best_step, state.best_eval_loss, state.evals_without_best = state.step, state.eval_loss, 0
            return True
        state.evals_without_best += 1
        patience = self.config.early_stopping_patience
        if patience is not None and state.evals_without_best >= patience:
            state.stopped_early = True
            self.journal.log(
                f"Stopped early: {patience} evals in a row without a new best; the best is step {state.best_step:,} "
                f"with an eval loss of {state.best_eval_loss:.4f}.",
                step=state.step,
            )
        return False

    def _sample(self) -> None:
        step = self.state.step
        self.journal.status("sampling", step=step)
        measured = self.task.sample(step)
        if measured:
            self.journal.metrics(step, **measured)
        self.journal.status("training", step=step)
        self.state.sampled = step

    def _diverged(self, what: str, step: int) -> Diverged:
        kept = f" The last good checkpoint is {self.last.name}." if self.last else " There is no checkpoint before it."
        return Diverged(
            f"The {what} is not a finite number at step {step:,}.{kept}",
            "Lower the learning rate, lengthen the warm-up, or look for faulty data.",
            step=step,
            checkpoint=self.last.name if self.last else None,
        )

    # -- saving --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """A full checkpoint, unless it stands already; then the old ones go."""
        if self.last is not None and self.last.step == self.state.step:
            return
        self.journal.status("saving", step=self.state.step)
        self.last = checkpoint.save(self.run_dir, self.model, self.state, self.optimizer, self._rng, self.journal)
        checkpoint.prune(self.run_dir, self.config.keep_checkpoints, self.state.best_step)
        self.journal.status("training", step=self.state.step)

    def _save_best(self) -> None:
        """The weights alone, unless a full checkpoint of this very step stands already: it holds them too.

        That one was saved by a stop in the eval that is made again now, and nothing else could be gone on from.
        """
        if self.last is None or self.last.step != self.state.step:
            checkpoint.save(self.run_dir, self.model, self.state, None, {}, self.journal)
            checkpoint.prune(self.run_dir, self.config.keep_checkpoints, self.state.best_step)

    def _save_stopped(self) -> None:
        """Save the last whole step; of one that was begun, nothing is kept."""
        self.optimizer.zero_grad()
        self._save()
        self.journal.log(f"Stopped as asked after step {self.state.step:,}; it can go on from there.")

    def _pause(self) -> None:
        if self._stop():
            raise _StopAsked


class _StopAsked(Exception):
    """Leaves a step or an eval in the middle."""
