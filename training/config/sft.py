"""The settings of supervised fine-tuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from training.config.fields import setting
from training.config.training import SamplingConfig


class SftConfig(SamplingConfig):
    """Supervised fine-tuning on chats, or on plain text."""

    label: ClassVar[str] = "SFT: supervised fine-tuning"
    takes: ClassVar[frozenset[str]] = frozenset({"chat", "text"})

    stage: Literal["sft"] = "sft"
    loss_on: Literal["assistant", "all"] = setting(
        "assistant", title="Loss on", group="Data",
        help="assistant: every assistant turn's tokens and its end. all: the whole chat. Plain text: always all.",
    )  # fmt: skip
    packing: bool = setting(
        True, title="Packing", group="Machine", rare=True,
        help="Examples lie end to end without padding and cannot see each other. Off: padded batches, slower.",
    )  # fmt: skip
