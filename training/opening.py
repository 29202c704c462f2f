"""What every training stage does before its steps: open the model, and find how much goes through it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.batches import MicroBatch
from training.config import TrainingConfig
from training.device import Device, fitting_micro_batch
from training.generate import set_ends
from training.loading import Loaded, check_vocabulary, load_model, new_model, take_weights
from training.model_files import Shape
from training.rundir import ResolvedInput


def open_model(source: Path | Shape, tokenizer: Any, found: ResolvedInput | None, seed: int) -> Loaded:
    """A causal language model in fp32, from a folder (with the checkpoint that was asked for) or new. Raises ModelError."""
    if isinstance(source, Shape):
        loaded = new_model(source, tokenizer, seed)
    else:
        loaded = load_model(source)
        take_weights(loaded, found)
    check_vocabulary(loaded.model, tokenizer)
    set_ends(loaded.model, tokenizer)
    return loaded


def micro_batch(config: TrainingConfig, loaded: Loaded, device: Device) -> MicroBatch:
    """What the config says, else what fits the device."""
    if config.micro_batch_size is not None:
        return MicroBatch(examples=config.micro_batch_size)
    shape = loaded.model.config.get_text_config()
    hidden = shape.hidden_size
    wide = getattr(shape, "intermediate_size", None) or 4 * hidden
    return fitting_micro_batch(
        device, shape.num_hidden_layers, hidden, wide, loaded.parameters, loaded.trained, config.gradient_checkpointing
    )
