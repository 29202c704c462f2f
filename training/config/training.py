"""What the stages that train by gradient share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator

from training.config.fields import DatasetReference, ModelReference, StageConfig, one_or_several, setting


class TrainingConfig(StageConfig):
    """What every stage that trains by gradient has."""

    model: ModelReference = setting(
        title="Model", group="What to train", right="run:sft or hf:Qwen/Qwen2.5-0.5B",
        help="run:<name>, hf:<Hub id>, path:<local folder>, or new:<shape> for a fresh small one.",
    )  # fmt: skip
    dataset: Annotated[list[DatasetReference], BeforeValidator(one_or_several)] = setting(
        title="Dataset", group="What to train", right="data:my-chats or hf:HuggingFaceTB/smol-smoltalk",
        help="data:<an upload>, hf:<Hub id>, path:<file>, or run:<what made it>. Several, with commas between, are joined.",
        min_length=1, max_length=16,
    )  # fmt: skip

    eval_fraction: float = setting(
        0.03, title="Held back for eval", group="Data", ge=0, le=0.5, right="0.03",
        help="Share of the examples that eval loss is measured on. No prompt is on both sides. 0: no eval.",
    )  # fmt: skip
    max_length: int = setting(
        512, title="Longest example", unit="tokens", group="Data", ge=8, le=131_072, right="512",
        help="What is longer is cut at the end; how many were is counted and shown. A pair: the prompt with either answer.",
    )  # fmt: skip

    epochs: float = setting(
        1.0, title="Epochs", group="Optimisation", gt=0, le=1000, right="1",
        help="Passes over the training data. Ignored where steps are given.",
    )  # fmt: skip
    max_steps: int | None = setting(
        None, title="Steps", group="Optimisation", ge=1, le=10_000_000, right="1000",
        help="Optimizer steps. Empty: as many as the epochs make.",
    )  # fmt: skip
    batch_size: int = setting(
        32, title="Batch size", unit="examples", group="Optimisation", ge=1, le=65_536, right="32",
        help="Examples per optimizer step: chats, texts, or pairs of answers. Split into what fits the device, automatically.",
    )  # fmt: skip
    micro_batch_size: int | None = setting(
        None, title="Micro-batch size", unit="examples", group="Machine", ge=1, le=65_536, rare=True, right="4",
        help="Examples per forward pass. Empty: found automatically. The loss is the same to rounding.",
    )  # fmt: skip
    learning_rate: float = setting(
        1e-4, title="Learning rate", group="Optimisation", gt=0, le=1, right="1e-4",
        help="The peak, after the warm-up.",
    )  # fmt: skip
    lr_schedule: Literal["constant", "linear", "cosine"] = setting(
        "cosine", title="Schedule", group="Optimisation",
        help="How the learning rate goes on after the warm-up: stays, or falls to 0 along a line or a cosine.",
    )  # fmt: skip
    warmup_steps: int = setting(
        0, title="Warm-up", unit="steps", group="Optimisation", ge=0, le=1_000_000, right="100",
        help="Steps over which the learning rate rises from 0.",
    )  # fmt: skip
    weight_decay: float = setting(
        0.0, title="Weight decay", group="Optimisation", ge=0, le=1, rare=True, right="0.01",
        help="Decoupled (AdamW); not applied to norms and biases.",
    )  # fmt: skip
    adam_beta1: float = setting(
        0.9, title="Adam beta 1", group="Optimisation", ge=0, lt=1, rare=True, right="0.9",
        help="Decay of the gradient's running mean.",
    )  # fmt: skip
    adam_beta2: float = setting(
        0.999, title="Adam beta 2", group="Optimisation", ge=0, lt=1, rare=True, right="0.999",
        help="Decay of the squared gradient's running mean.",
    )  # fmt: skip
    max_grad_norm: float | None = setting(
        1.0, title="Gradient clipping", group="Optimisation", gt=0, le=1e6, rare=True, right="1.0",
        help="The gradient is scaled down to this norm where it is longer. Empty: never.",
    )  # fmt: skip
    seed: int = setting(
        0, title="Seed", group="Optimisation", ge=0, le=2**31 - 1, rare=True, right="0",
        help="Of the split, the order of the data, and fresh weights.",
    )  # fmt: skip

    eval_every: int = setting(
        50, title="Eval every", unit="steps", group="Evaluation and checkpoints", ge=1, le=1_000_000, right="50",
        help="Also at the start and at the end.",
    )  # fmt: skip
    save_every: int = setting(
        100, title="Save every", unit="steps", group="Evaluation and checkpoints", ge=1, le=1_000_000, right="100",
        help="A killed run goes on from its last checkpoint, exactly.",
    )  # fmt: skip
    early_stopping_patience: int | None = setting(
        None, title="Early stopping", unit="evals", group="Evaluation and checkpoints", ge=1, le=10_000, right="3",
        help="Stop after so many evals in a row without a new best eval loss. Empty: never.",
    )  # fmt: skip
    keep_checkpoints: int = setting(
        2, title="Checkpoints kept", group="Evaluation and checkpoints", ge=1, le=1000, rare=True, right="2",
        help="The latest so many, and always the best.",
    )  # fmt: skip

    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", title="Precision", group="Machine", rare=True,
        help="Of the computation; the weights that are trained are always fp32. auto: bf16 where it is faster.",
    )  # fmt: skip
    gradient_checkpointing: bool = setting(
        False, title="Gradient checkpointing", group="Machine", rare=True,
        help="Computes activations twice instead of keeping them: less memory, about a third slower.",
    )  # fmt: skip
    lora_rank: int | None = setting(
        None, title="LoRA rank", group="LoRA", ge=1, le=1024, rare=True, right="16",
        help="Train small low-rank matrices beside the frozen weights. Empty: train all weights.",
    )  # fmt: skip
    lora_alpha: float = setting(
        16.0, title="LoRA alpha", group="LoRA", gt=0, le=4096, rare=True, right="16",
        help="The matrices' product is scaled by alpha / rank.",
    )  # fmt: skip
    lora_dropout: float = setting(
        0.0, title="LoRA dropout", group="LoRA", ge=0, lt=1, rare=True, right="0.05",
        help="Share of the inputs of the matrices that is set to 0 while training.",
    )  # fmt: skip

    @field_validator("early_stopping_patience")
    @classmethod
    def _stopping_needs_eval(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("eval_fraction") == 0:
            raise ValueError("Early stopping watches the eval loss: hold back a share for eval, for example 0.03.")
        return value

    def references(self) -> list[tuple[str, str]]:
        return [("model", self.model), *(("dataset", text) for text in self.dataset)]


class SamplingConfig(TrainingConfig):
    """What a stage has whose model answers a few fixed prompts from time to time."""

    sample_every: int = setting(
        100, title="Sample every", unit="steps", group="Samples", ge=1, le=1_000_000, rare=True, right="100",
        help="How often the model answers a few fixed prompts, so that one can watch it learn.",
    )  # fmt: skip
    sample_prompts: list[str] = setting(
        [], title="Sample prompts", group="Samples", rare=True, max_length=16,
        help="One a line. Empty: the first prompts of the examples held back for eval.",
    )  # fmt: skip
    sample_count: int = setting(
        3, title="Sample prompts drawn", group="Samples", ge=0, le=16, rare=True, right="3",
        help="How many prompts are taken from the examples held back, where none are given. 0: no samples.",
    )  # fmt: skip
    sample_tokens: int = setting(
        96, title="Longest sample", unit="tokens", group="Samples", ge=1, le=4096, rare=True, right="96",
        help="A sampled answer is cut there.",
    )  # fmt: skip
