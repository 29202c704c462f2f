"""Models: loaded from a folder of safetensors, or made new; with LoRA where asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from training import checkpoint
from training.attention import embedding_rows
from training.config import TrainingConfig
from training.device import Device
from training.errors import ModelError
from training.model_files import Shape
from training.rundir import ResolvedInput


@dataclass
class Loaded:
    """A model to train. `adapter`: the peft wrapper around the same modules, where LoRA is used."""

    model: PreTrainedModel
    source_dtype: torch.dtype
    adapter: Any | None = None

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    @property
    def trained(self) -> int:
        return sum(each.numel() for each in self.model.parameters() if each.requires_grad)


def load_model(folder: Path) -> Loaded:
    """Load a causal language model in fp32. No pickle, no code from the folder. Raises ModelError."""
    model = load_pretrained(AutoModelForCausalLM, folder, "auto", "a causal language model")
    source = model.dtype
    return Loaded(model.float(), source)


def load_pretrained(kind: Any, folder: Path, dtype: torch.dtype | str, what: str, field: str = "model") -> Any:
    """A model of one of transformers' automatic classes. `what` it is, in words. Raises ModelError.

    No pickle, no code from the folder.
    """
    try:
        loaded: Any = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"The model cannot be loaded: {_first_sentence(error)}",
            f"Save it again with transformers (save_pretrained), as {what} in safetensors.",
            field=field,
        ) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"The model's files lack {len(missing):,} of its weights, {missing[0]} for one: they would be random.",
            "Save it again with transformers, or take another model.",
            field=field,
        )
    return model


def take_weights(loaded: Loaded, source: ResolvedInput | None) -> None:
    """Put the weights of a checkpoint in place of the model's, where the input asks for one. Raises ModelError."""
    if source is None or source.weights is None:
        return
    folder = Path(source.weights)
    try:
        checkpoint.load_weights(checkpoint.check(folder), loaded.model)
    except checkpoint.Damaged as reason:
        raise ModelError(
            f"The checkpoint {folder.name} cannot be used: {reason}.",
            "Take the run's model (without ?checkpoint), or another checkpoint. Those of a LoRA run are its adapter's.",
            field="model",
        ) from None


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".:") + "."


def new_model(shape: Shape, tokenizer: PreTrainedTokenizerBase, seed: int) -> Loaded:
    """A Qwen2-shaped model with random weights, as many words as its tokenizer has; the same for the same seed."""
    settings = shape.config() | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    del settings["model_type"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Loaded(Qwen2ForCausalLM(Qwen2Config(**settings)), torch.float32)


SCORE_SPREAD = 0.1
"""What a fresh score head's rewards spread around 0, for states of unit mean square, as a last norm makes them. So small,
every pair begins as a toss-up, with a loss near ln 2; at 0 itself, no gradient would reach the layers below at first."""


def as_reward_model(loaded: Loaded, seed: int) -> Loaded:
    """The same model with one score in place of the vocabulary; the same score head for the same seed. Uses it up.

    It is what AutoModelForSequenceClassification makes of the architecture: a linear `score` of the last states.
    Raises ModelError where transformers has no such class.
    """
    config = loaded.model.config
    config.num_labels = 1
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model: Any = AutoModelForSequenceClassification.from_config(copy.deepcopy(config))
    except ValueError:
        raise _no_scores(config.model_type) from None
    head = getattr(model, "score", None)
    if type(head) is not nn.Linear or type(model.base_model) is not type(loaded.model.base_model):
        raise _no_scores(config.model_type)
    setattr(model, model.base_model_prefix, loaded.model.base_model)
    model.config = config
    model.score = nn.Linear(head.in_features, 1, bias=False)
    spread = SCORE_SPREAD / head.in_features**0.5
    nn.init.normal_(model.score.weight, std=spread, generator=torch.Generator().manual_seed(seed))
    if any(each.is_meta for each in model.parameters()):
        raise _no_scores(config.model_type)
    return Loaded(model, loaded.source_dtype)


def is_reward_model(model: PreTrainedModel) -> bool:
    """Whether it scores sequences: `as_reward_model` made it."""
    return hasattr(model, "score")


def _no_scores(kind: str) -> ModelError:
    return ModelError(
        f"transformers has no reward model of the architecture “{kind}”: none that scores its last states.",
        "Take a model of another architecture, for example hf:Qwen/Qwen2.5-0.5B.",
        field="model",
    )


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError where a token would have no embedding."""
    rows = embedding_rows(model)
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ModelError(
            f"The tokenizer has ids up to {highest:,}, but the model has only {rows:,} embeddings.",
            "The folder's tokenizer belongs to another model: put the right one in, or resize the embeddings.",
            field="model",
        )


def prepare_for_training(loaded: Loaded, config: TrainingConfig, device: Device) -> None:
    """Move the model to its device, put LoRA in where asked for, and turn gradient checkpointing on."""
    model: Any = loaded.model
    model.config.use_cache = False
    if config.lora_rank is not None:
        _add_lora(loaded, config, device)
    model.to(device.torch)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    module: Any
    for module in model.modules():
        if hasattr(module, "layerdrop"):
            module.layerdrop = 0.0  # drawn from numpy's or Python's generator, which checkpoints do not hold


def _add_lora(loaded: Loaded, config: TrainingConfig, device: Device) -> None:
    """Low-rank matrices (Hu et al. 2021) beside every linear layer but the head. A score head is trained in full.

    They are fp32. The frozen weights stay in bf16 where they came so and the computation is bf16: nothing is lost.
    """
    from peft import LoraConfig, get_peft_model

    model: Any = loaded.model
    if device.half and loaded.source_dtype == torch.bfloat16:
        model.to(torch.bfloat16)
    lora = LoraConfig(
        r=config.lora_rank or 1,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # fractions do as well
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="SEQ_CLS" if is_reward_model(loaded.model) else "CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        loaded.adapter = get_peft_model(loaded.model, lora, autocast_adapter_dtype=True)
    for trained in model.parameters():
        if trained.requires_grad:  # peft leaves the score head as the frozen weights are
            trained.data = trained.data.float()
    loaded.adapter.peft_config["default"].base_model_name_or_path = config.model
