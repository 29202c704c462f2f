"""The settings of a reward model's training."""

from __future__ import annotations

from typing import ClassVar, Literal

from training.config.fields import setting
from training.config.training import TrainingConfig


class RewardConfig(TrainingConfig):
    """A Bradley-Terry reward model on pairs of answers."""

    label: ClassVar[str] = "Reward: a model that scores answers"
    takes: ClassVar[frozenset[str]] = frozenset({"preference"})

    stage: Literal["reward"] = "reward"
    learning_rate: float = setting(
        1e-5, title="Learning rate", group="Optimisation", gt=0, le=1, right="1e-5",
        help="The peak, after the warm-up.",
    )  # fmt: skip
