"""What a run will do, before it does it: steps, tokens, memory, time, disk. Pure; what is unknown says why."""

from __future__ import annotations

from dataclasses import dataclass

from app.units import duration, in_bytes, short
from training.config import DpoConfig, RewardConfig, TrainingConfig
from training.steps import examples_of_run, total_steps

CHARACTERS_PER_TOKEN = 4.0  # of English, in a common vocabulary
TOKENS_PER_TURN = 5.0  # that a chat template adds: the role, and where it begins and ends
FRESH_TOKENS_PER_TURN = 10.5  # the same where a new vocabulary spells "user" and "assistant" letter by letter
FORWARD = 1 / 3  # of a training step's work: forward without backward
RUNTIME = 430 << 20  # bytes that a process with torch takes on a CPU before any model (torch 2.13, measured)


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data of a run: sums over all its data sets. A row is an example, or a pair of answers.

    `measured`: tokens a row, of an earlier run.
    """

    rows: int | None = None
    characters: int | None = None
    turns: int = 0
    measured: float | None = None
    unknown: str = "until the run starts and counts it"


@dataclass(frozen=True)
class ModelSize:
    """What is known of the model. `dtype_bytes`: of a weight in the saved model. `can_chat`: None where nobody knows."""

    parameters: int | None = None
    hidden: int = 0
    layers: int = 0
    intermediate: int = 0
    vocab: int = 0
    max_positions: int | None = None
    dtype_bytes: int = 4
    fresh: bool = False
    can_chat: bool | None = None
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
    """Numbers behind the panel; None where unknown. Where a stage trains on pairs, an example is a pair."""

    examples: int | None  # trained on, in one epoch
    held_back: int | None
    steps: int | None
    seen: int | None  # examples over the whole run
    tokens: int | None
    reference_tokens: int | None  # that the reference reads before the first step, at most


def counts(config: TrainingConfig, data: DataFacts) -> Counts:
    """What the data and the config come to."""
    examples = held_back = seen = tokens = reference = None
    mean = tokens_per_example(data, fresh=config.model.startswith("new:"))
    if mean is not None:
        mean = min(most_tokens(config), mean)
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
        if mean is not None:
            tokens = round(seen * mean)
    if isinstance(config, DpoConfig) and mean is not None and data.rows is not None:
        reference = round(data.rows * mean)
    return Counts(examples, held_back, steps, seen, tokens, reference)


def on_pairs(config: TrainingConfig) -> bool:
    """Whether the stage trains on pairs of answers."""
    return isinstance(config, DpoConfig | RewardConfig)


def things(config: TrainingConfig) -> str:
    """What the stage trains on, in a word."""
    return "pairs" if on_pairs(config) else "examples"


def most_tokens(config: TrainingConfig) -> int:
    """Tokens of the longest example, or of the longest pair: both its answers with the prompt at their head."""
    return config.max_length * (2 if on_pairs(config) else 1)


def tokens_per_example(data: DataFacts, *, fresh: bool) -> float | None:
    """As an earlier run had, else by the number of characters and turns."""
    if data.measured is not None or not data.rows or data.characters is None:
        return data.measured
    turn = FRESH_TOKENS_PER_TURN if fresh else TOKENS_PER_TURN
    return (data.characters / CHARACTERS_PER_TOKEN + data.turns * turn) / data.rows


def memory(config: TrainingConfig, model: ModelSize, runtime: int = 0) -> int | None:
    """Bytes that training takes at least: weights, gradient and AdamW's means, and one example's or pair's activations.

    A parameter that is trained takes 4 bytes each for weight, gradient and two means; a frozen one (LoRA) 4.
    Activations as in training/device.py: a layer keeps about 14 vectors of the hidden size and 5 of the
    intermediate one a token, 4 bytes each; the logits and their gradient, 4 bytes a word of the vocabulary each
    (a reward model has none). DPO's reference comes in only while samples are taken, when nothing else is computed.
    """
    if model.parameters is None:
        return None
    trained = trained_parameters(config, model)
    layer = (14 * model.hidden + 5 * model.intermediate) * 4
    token = model.layers * model.hidden * 4 + layer if config.gradient_checkpointing else model.layers * layer
    logits = 0 if isinstance(config, RewardConfig) else 8 * model.vocab
    activations = (config.micro_batch_size or 1) * most_tokens(config) * (token + logits)
    weights = 16 * trained + 4 * (model.parameters - trained if config.lora_rank else 0)
    return weights + max(activations, visiting(config, model) or 0) + runtime


def visiting(config: TrainingConfig, model: ModelSize) -> int | None:
    """Bytes of DPO's reference while samples are taken, as large as the model; None where it never comes in."""
    samples = isinstance(config, DpoConfig) and (config.sample_count or config.sample_prompts)
    return 4 * model.parameters if samples and model.parameters is not None else None


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
        Line(things(config), *_examples(found, data)),
        Line("steps", *_steps(config, found, data)),
        Line("tokens", *_tokens(config, found, data)),
        *([Line("reference", *_reference(found, data))] if isinstance(config, DpoConfig) else []),
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
    return f"{found.steps:,}", f"of {config.batch_size:,} {things(config)}"


def _tokens(config: TrainingConfig, found: Counts, data: DataFacts) -> tuple[str, str]:
    if found.tokens is None:
        return "", data.unknown
    each = f"{found.tokens / found.seen:,.0f} a pair, " if on_pairs(config) and found.seen else ""
    note = "as an earlier run had" if data.measured is not None else "at four characters a token"
    return f"about {short(found.tokens)}", each + note


def _reference(found: Counts, data: DataFacts) -> tuple[str, str]:
    if found.reference_tokens is None:
        return "", data.unknown
    return f"reads about {short(found.reference_tokens)} tokens", "once, before the first step; kept for later runs"


def _model(config: TrainingConfig, model: ModelSize) -> tuple[str, str]:
    if model.parameters is None:
        return "", model.unknown
    note = f"about {short(trained_parameters(config, model))} trained" if config.lora_rank else "all trained"
    return f"{short(model.parameters)} parameters", note


def _memory(config: TrainingConfig, model: ModelSize, machine: Machine) -> tuple[str, str]:
    need = memory(config, model, machine.runtime)
    if need is None:
        return "", model.unknown
    note = "no worker has said what it has"
    if machine.memory is not None:
        note = f"of {in_bytes(machine.memory)} on {machine.device}"
    if (reference := visiting(config, model)) is not None:
        note += f"; the reference, {in_bytes(reference)}, comes in for samples alone"
    return f"{in_bytes(need)} or more", note


def _time(found: Counts, machine: Machine) -> tuple[str, str]:
    if found.tokens is None:
        return "", "as long as the tokens are"
    if machine.speed is None:
        return "", "until a run of this model has been timed"
    seconds = (found.tokens + FORWARD * (found.reference_tokens or 0)) / machine.speed
    return f"about {duration(seconds)}", f"at {machine.speed:,.0f} tokens/s, as an earlier run had"


def _disk(config: TrainingConfig, model: ModelSize, machine: Machine) -> tuple[str, str]:
    need = disk(config, model)
    if need is None:
        return "", model.unknown
    free = f", {in_bytes(machine.free_disk)} free" if machine.free_disk is not None else ""
    return f"up to {in_bytes(need)}", f"checkpoints and model{free}"
