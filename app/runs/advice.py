"""What is allowed but probably not meant, each a sentence at its field. Pure."""

from __future__ import annotations

import math

from app.runs.plan import Counts, DataFacts, Machine, ModelSize, counts, disk, memory, things
from app.units import in_bytes
from training.config import DpoConfig, TrainingConfig

FULL_RATE, LORA_RATE, FRESH_RATE = 2e-4, 2e-3, 1e-2  # learning rates above which a warning is due
DPO_FULL_RATE, DPO_LORA_RATE = 5e-5, 5e-4
USUAL_BETA = (0.001, 1.0, "0.01 to 0.5 is common")  # betas outside of which a warning is due; what is common
PER_TOKEN_BETA = (0.5, 20.0, "with log-ratios per token, 2 to 10 is common")  # Lambert et al. 2024 (Tulu 3) take 5
LEAST_CLAMPED = 0.1  # beta x margin clamp below which a pair can hardly lower its loss


def warnings(config: TrainingConfig, data: DataFacts, model: ModelSize, machine: Machine) -> dict[str, str]:
    """Sentences by field."""
    found = counts(config, data)
    said = _of_steps(config, found) | _of_room(config, model, machine)
    if (rate := _high_rate(config, model)) is not None:
        said["learning_rate"] = rate
    if config.eval_fraction == 0:
        said["eval_fraction"] = "Without eval nobody sees overfitting, and the last step is kept, not the best."
    if found.examples is not None and config.batch_size > found.examples:
        said["batch_size"] = f"There are only {found.examples:,} {things(config)}: every step sees some of them twice."
    if config.micro_batch_size is not None and config.micro_batch_size > config.batch_size:
        said["micro_batch_size"] = f"A step has only {config.batch_size:,} {things(config)}."
    return (_of_dpo(config, found, model) if isinstance(config, DpoConfig) else {}) | said


def _of_steps(config: TrainingConfig, found: Counts) -> dict[str, str]:
    """What a run is too short for."""
    steps, patience, said = found.steps, config.early_stopping_patience, dict[str, str]()
    if steps is None:
        return said
    if config.warmup_steps >= steps:
        said["warmup_steps"] = f"The run has {steps:,} steps: the learning rate never reaches its peak."
    if config.save_every > steps:
        said["save_every"] = f"The run has {steps:,} steps: killed before its end, it would begin again."
    if config.eval_fraction and config.eval_every > steps:
        said["eval_every"] = f"The run has {steps:,} steps: eval loss is measured at its start and end alone."
    if patience is not None and patience * config.eval_every >= steps:
        said["early_stopping_patience"] = f"The run has {steps:,} steps: too few for so many evals."
    return said


def _of_room(config: TrainingConfig, model: ModelSize, machine: Machine) -> dict[str, str]:
    """What a device or a disk is too small for."""
    said = dict[str, str]()
    need = memory(config, model, machine.runtime)
    if need is not None and machine.memory is not None and need > machine.memory:
        said["model"] = f"Needs {in_bytes(need)} or more; {machine.device} has {in_bytes(machine.memory)}."
    space = disk(config, model)
    if space is not None and machine.free_disk is not None and space > machine.free_disk:
        said["keep_checkpoints"] = f"Needs {in_bytes(space)} on the disk; {in_bytes(machine.free_disk)} are free."
    return said


def _high_rate(config: TrainingConfig, model: ModelSize) -> str | None:
    dpo = isinstance(config, DpoConfig)
    if config.lora_rank:
        most, what = (DPO_LORA_RATE, "DPO with LoRA") if dpo else (LORA_RATE, "LoRA")
    elif model.fresh:
        most, what = FRESH_RATE, "a fresh model"
    else:
        most, what = (DPO_FULL_RATE, "DPO") if dpo else (FULL_RATE, "training all weights")
    if config.learning_rate <= most:
        return None
    return f"Unusually high for {what}; {most / 10:g} to {most:g} is common."


def _of_dpo(config: DpoConfig, found: Counts, model: ModelSize) -> dict[str, str]:
    said = dict[str, str]()
    least, most, common = PER_TOKEN_BETA if config.loss == "sigmoid_norm" else USUAL_BETA
    if config.beta < least:
        said["beta"] = f"So small that nothing holds the model near the reference; {common}."
    if config.beta > most:
        said["beta"] = f"So large that the model can hardly leave the reference; {common}."
    if config.margin_clamp is not None and (clamp := _low_clamp(config, config.margin_clamp)) is not None:
        said["margin_clamp"] = clamp
    if found.steps is not None and config.beta_warmup_steps >= found.steps:
        said["beta_warmup_steps"] = f"The run has {found.steps:,} steps: beta never reaches its full value."
    if model.can_chat is False:
        said["model"] = (
            "DPO from a fresh model teaches little: start from an SFT run, as run:<name>."
            if model.fresh
            else "DPO from a base model that cannot chat yet teaches little: start from an SFT run, unless this one has"
            " been tuned already."
        )
    return said


def _low_clamp(config: DpoConfig, clamp: float) -> str | None:
    """Where a clamp leaves the loss next to nothing to learn."""
    if config.loss == "ipo":
        aim = 1 / (2 * config.beta)
        return None if clamp >= aim else f"IPO aims at a margin of 1 / (2 beta) = {aim:g}, which lies beyond the clamp."
    most = config.beta * clamp
    if most >= LEAST_CLAMPED:
        return None
    right, wrong = math.log1p(math.exp(-most)), math.log1p(math.exp(most))
    least = (1 - config.label_smoothing) * right + config.label_smoothing * wrong
    return (
        f"Times beta it is {most:g}: the loss of a pair can fall from {math.log(2):.3f} to {least:.3f} and no further."
    )
