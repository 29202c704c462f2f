"""What a run will do, before it does it: steps, tokens, memory, time, disk. Pure; what is unknown says why."""

from __future__ import annotations

from dataclasses import dataclass

from app.units import duration, in_bytes, short
from training.config import TrainingConfig
from training.steps import examples_of_run, total_steps

FULL_RATE, LORA_RATE, FRESH_RATE = 2e-4, 2e-3, 1e-2  # learning rates above which a warning is due
CHARACTERS_PER_TOKEN = 4.0  # of English, in a common vocabulary
TOKENS_PER_TURN = 5.0  # that a chat template adds: the role, and where it begins and ends
FRESH_TOKENS_PER_TURN = 10.5  # the same where a new vocabulary spells "user" and "assistant" letter by letter
RUNTIME = 430 << 20  # bytes that a process with torch takes on a CPU before any model (torch 2.13, measured)


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data of a run: sums over all its data sets. `measured`: tokens an example, of an earlier run."""

    rows: int | None = None
    characters: int | None = None
    turns: int = 0
    measured: float | None = None
    unknown: str = "until the run starts and counts it"


@dataclass(frozen=True)
class ModelSize:
    """What is known of the model. `dtype_bytes`: of a weight in the saved model."""

    parameters: int | None = None
    hidden: int = 0
    layers: int = 0
    intermediate: int = 0
    vocab: int = 0
    max_positions: int | None = None
    dtype_bytes: int = 4
    fresh: bool = False
    unknown: str = "until the model is there"


@dataclass(frozen=True)
class Machine:
    """Where it may run: a device's name and memory (bytes), and speed (tokens/s) that an earlier run of this model had."""

    device: str = ""
    memory: int | None = None
    speed: float | None = None
    runtime: int = 0  # bytes that the process itself takes of the memory
    free_disk: int | None = None


@dataclass(frozen=True)
class Line:
    """One line of the panel. An unknown `value` is empty, and `note` says why; else `note` says how it was found."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Counts:
    """Numbers behind the panel; None where unknown."""

    examples: int | None  # trained on, in one epoch
    held_back: int | None
    steps: int | None
    seen: int | None  # examples over the whole run
    tokens: int | None


def counts(config: TrainingConfig, data: DataFacts) -> Counts:
    """What the data and the config come to."""
    examples = held_back = seen = tokens = None
    steps = config.max_steps
    if data.rows is not None:
        held_back = round(data.rows * config.eval_fraction)
        examples = max(0, data.rows - held_back)
        if steps is None:
            steps = total_steps(examples, config.batch_size, config.epochs, None)
    if steps is not None:
        seen = steps * config.batch_size
        if config.max_steps is None and examples is not None:
            seen = examples_of_run(examples, config.epochs)
        mean = tokens_per_example(data, fresh=config.model.startswith("new:"))
        if mean is not None:
            tokens = round(seen * min(config.max_length, mean))
    return Counts(examples, held_back, steps, seen, tokens)


def tokens_per_example(data: DataFacts, *, fresh: bool) -> float | None:
    """As an earlier run had, else by the number of characters and turns."""
    if data.measured is not None or not data.rows or data.characters is None:
        return data.measured
    turn = FRESH_TOKENS_PER_TURN if fresh else TOKENS_PER_TURN
    return (data.characters / CHARACTERS_PER_TOKEN + data.turns * turn) / data.rows


def memory(config: TrainingConfig, model: ModelSize, runtime: int = 0) -> int | None:
    """Bytes that training takes at least: weights, gradient and AdamW's means, and one example's activations.

    A parameter that is trained takes 4 bytes each for weight, gradient and two means; a frozen one (LoRA) 4.
    Activations as in training/device.py: a layer keeps about 14 vectors of the hidden size and 5 of the
    intermediate one a token, 4 bytes each; the logits and their gradient, 4 bytes a word of the vocabulary each.
    """
    if model.parameters is None:
        return None
    trained = trained_parameters(config, model)
    layer = (14 * model.hidden + 5 * model.intermediate) * 4
    token = model.layers * model.hidden * 4 + layer if config.gradient_checkpointing else model.layers * layer
    examples = config.micro_batch_size or 1
    activations = examples * config.max_length * (token + 8 * model.vocab)
    return 16 * trained + 4 * (model.parameters - trained if config.lora_rank else 0) + activations + runtime


def trained_parameters(config: TrainingConfig, model: ModelSize) -> int:
    """All, or what LoRA adds to the attention's and the MLP's matrices (an upper estimate: all taken as hidden-wide)."""
    assert model.parameters is not None
    if config.lora_rank is None:
        return model.parameters
    attention = 4 * 2 * model.hidden
    feed_forward = 3 * (model.hidden + model.intermediate)
    return min(model.parameters, model.layers * config.lora_rank * (attention + feed_forward))


def disk(config: TrainingConfig, model: ModelSize) -> int | None:
    """Bytes of checkpoints and model at most, as training/room.py counts them."""
    if model.parameters is None:
        return None
    weights = 4 * trained_parameters(config, model)
    return (config.keep_checkpoints + 1) * 4 * weights + model.parameters * model.dtype_bytes


def plan(config: TrainingConfig, data: DataFacts, model: ModelSize, machine: Machine) -> list[Line]:
    """The panel's lines."""
    found = counts(config, data)
    return [
        Line("examples", *_examples(found, data)),
        Line("steps", *_steps(config, found, data)),
        Line("tokens", *_tokens(found, data)),
        Line("model", *_model(config, model)),
        Line("memory", *_memory(config, model, machine)),
        Line("time", *_time(found, machine)),
        Line("disk", *_disk(config, model, machine)),
    ]


def _examples(found: Counts, data: DataFacts) -> tuple[str, str]:
    if found.examples is None:
        return "", data.unknown
    return f"{found.examples:,}", f"and {found.held_back:,} held back for eval" if found.held_back else "none held back"


def _steps(config: TrainingConfig, found: Counts, data: DataFacts) -> tuple[str, str]:
    if found.steps is None:
        return "", data.unknown
    if config.max_steps is not None and found.examples and found.seen:
        return f"{found.steps:,}", f"{found.seen / found.examples:.3g} passes over the data"
    return f"{found.steps:,}", f"of {config.batch_size:,} examples"


def _tokens(found: Counts, data: DataFacts) -> tuple[str, str]:
    if found.tokens is None:
        return "", data.unknown
    note = "as an earlier run had" if data.measured is not None else "at four characters a token"
    return f"about {short(found.tokens)}", note


def _model(config: TrainingConfig, model: ModelSize) -> tuple[str, str]:
    if model.parameters is None:
        return "", model.unknown
    note = f"about {short(trained_parameters(config, model))} trained" if config.lora_rank else "all trained"
    return f"{short(model.parameters)} parameters", note


def _memory(config: TrainingConfig, model: ModelSize, machine: Machine) -> tuple[str, str]:
    need = memory(config, model, machine.runtime)
    if need is None:
        return "", model.unknown
    if machine.memory is None:
        return f"{in_bytes(need)} or more", "no worker has said what it has"
    return f"{in_bytes(need)} or more", f"of {in_bytes(machine.memory)} on {machine.device}"


def _time(found: Counts, machine: Machine) -> tuple[str, str]:
    if found.tokens is None:
        return "", "as long as the tokens are"
    if machine.speed is None:
        return "", "until a run of this model has been timed"
    return f"about {duration(found.tokens / machine.speed)}", f"at {machine.speed:,.0f} tokens/s, as an earlier run had"


def _disk(config: TrainingConfig, model: ModelSize, machine: Machine) -> tuple[str, str]:
    need = disk(config, model)
    if need is None:
        return "", model.unknown
    free = f", {in_bytes(machine.free_disk)} free" if machine.free_disk is not None else ""
    return f"up to {in_bytes(need)}", f"checkpoints and model{free}"


def warnings(config: TrainingConfig, data: DataFacts, model: ModelSize, machine: Machine) -> dict[str, str]:
    """What is allowed but probably not meant, by field."""
    found, said = counts(config, data), dict[str, str]()
    steps = found.steps
    if (rate := _high_rate(config, model)) is not None:
        said["learning_rate"] = rate
    if config.eval_fraction == 0:
        said["eval_fraction"] = "Without eval nobody sees overfitting, and the last step is kept, not the best."
    if steps is not None and config.warmup_steps >= steps:
        said["warmup_steps"] = f"The run has {steps:,} steps: the learning rate never reaches its peak."
    if found.examples is not None and config.batch_size > found.examples:
        said["batch_size"] = f"There are only {found.examples:,} examples: every step sees some of them twice."
    if config.micro_batch_size is not None and config.micro_batch_size > config.batch_size:
        said["micro_batch_size"] = f"A step has only {config.batch_size:,} examples."
    if steps is not None and config.save_every > steps:
        said["save_every"] = f"The run has {steps:,} steps: killed before its end, it would begin again."
    if steps is not None and config.eval_fraction and config.eval_every > steps:
        said["eval_every"] = f"The run has {steps:,} steps: eval loss is measured at its start and end alone."
    patience = config.early_stopping_patience
    if patience is not None and steps is not None and patience * config.eval_every >= steps:
        said["early_stopping_patience"] = f"The run has {steps:,} steps: too few for so many evals."
    need = memory(config, model, machine.runtime)
    if need is not None and machine.memory is not None and need > machine.memory:
        said["model"] = f"Needs {in_bytes(need)} or more; {machine.device} has {in_bytes(machine.memory)}."
    space = disk(config, model)
    if space is not None and machine.free_disk is not None and space > machine.free_disk:
        said["keep_checkpoints"] = f"Needs {in_bytes(space)} on the disk; {in_bytes(machine.free_disk)} are free."
    return said


def _high_rate(config: TrainingConfig, model: ModelSize) -> str | None:
    most = LORA_RATE if config.lora_rank else FRESH_RATE if model.fresh else FULL_RATE
    if config.learning_rate <= most:
        return None
    what = "LoRA" if config.lora_rank else "a fresh model" if model.fresh else "training all weights"
    return f"Unusually high for {what}; {most / 10:g} to {most:g} is common."
