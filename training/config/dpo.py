"""The settings of direct preference optimisation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ValidationInfo, field_validator

from training.config.fields import ModelReference, setting
from training.config.training import SamplingConfig


class DpoConfig(SamplingConfig):
    """Direct preference optimisation (Rafailov et al. 2023) on pairs of answers."""

    label: ClassVar[str] = "DPO: direct preference optimisation"
    takes: ClassVar[frozenset[str]] = frozenset({"preference"})

    stage: Literal["dpo"] = "dpo"
    reference_model: ModelReference | None = setting(
        None, title="Reference model", group="What to train", rare=True, right="run:sft",
        help="What the model is kept near to; its tokenizer must be the same. Empty: the model as it begins.",
    )  # fmt: skip

    loss: Literal["sigmoid", "sigmoid_norm", "ipo"] = setting(
        "sigmoid", title="Loss", group="Preference",
        help="sigmoid: DPO. sigmoid_norm: the same with log-ratios per token, so that length does not count. "
        "ipo: a squared loss that pulls the margin to 1 / (2 beta) per token and no further.",
    )  # fmt: skip
    beta: float = setting(
        0.1, title="Beta", group="Preference", gt=0, le=100, right="0.1",
        help="How much a log-ratio counts: the smaller, the further the model may go from the reference.",
    )  # fmt: skip
    beta_warmup_steps: int = setting(
        0, title="Beta warm-up", unit="steps", group="Preference", ge=0, le=1_000_000, right="100",
        help="Steps over which beta rises in a line from 0. Eval always measures with the full beta.",
    )  # fmt: skip
    margin_clamp: float | None = setting(
        None, title="Margin clamp", unit="nats", group="Preference", gt=0, le=1e6, rare=True, right="20",
        help="The difference of the two log-ratios is cut to ± this, before beta. Beyond it a pair teaches nothing, "
        "also where it is ranked worst. Empty: never.",
    )  # fmt: skip
    label_smoothing: float = setting(
        0.0, title="Label smoothing", group="Preference", ge=0, lt=0.5, rare=True, right="0.1",
        help="The share of pairs that you expect to be labelled the wrong way round (conservative DPO).",
    )  # fmt: skip

    eval_fraction: float = setting(
        0.02, title="Held back for eval", group="Data", ge=0, le=0.5, right="0.02",
        help="Share of the pairs that eval loss is measured on. No prompt is on both sides. 0: no eval.",
    )  # fmt: skip
    learning_rate: float = setting(
        5e-6, title="Learning rate", group="Optimisation", gt=0, le=1, right="5e-6",
        help="The peak, after the warm-up. LoRA wants about ten times as much.",
    )  # fmt: skip
    sample_every: int = setting(
        50, title="Sample every", unit="steps", group="Samples", ge=1, le=1_000_000, rare=True, right="50",
        help="How often the model answers a few fixed prompts: their length and the distance from the reference are "
        "measured there.",
    )  # fmt: skip
    sample_count: int = setting(
        8, title="Sample prompts drawn", group="Samples", ge=0, le=64, rare=True, right="8",
        help="How many prompts are taken from the pairs held back, where none are given. 0: no samples.",
    )  # fmt: skip

    @field_validator("beta_warmup_steps", "label_smoothing")
    @classmethod
    def _not_with_ipo(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("loss") == "ipo":
            why = {
                "beta_warmup_steps": "IPO aims at a margin of 1 / (2 beta), which a beta near 0 puts out of reach.",
                "label_smoothing": "IPO's squared loss has no labels to smooth.",
            }
            raise ValueError(f"{why[str(info.field_name)]} Set it to 0, or choose another loss.")
        return value

    def references(self) -> list[tuple[str, str]]:
        reference = [("reference_model", self.reference_model)] if self.reference_model else []
        return [*super().references(), *reference]
