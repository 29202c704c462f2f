"""What a reader of curves has before it: the curves, the settings, and what follows from the settings alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from app.runs.health.points import HasPoints, Points
from training.config import STAGES

PREFERENCE_STAGES = ("dpo", "reward")


class Evidence:
    """A run's curves and settings. `pairs`: how many are held back for eval, where that is known."""

    def __init__(
        self, stage: str, config: Mapping[str, Any], curves: Mapping[str, HasPoints], pairs: int | None = None
    ) -> None:
        self.stage, self.pairs = stage, pairs
        fields = STAGES[stage].model_fields if stage in STAGES else {}
        self._config = {name: field.default for name, field in fields.items()} | dict(config)
        self._curves = curves
        self._points: dict[str, Points] = {}

    def __getitem__(self, key: str) -> Points:
        if key not in self._points:
            self._points[key] = Points.of(self._curves.get(key))
        return self._points[key]

    def setting(self, name: str) -> Any:
        """A setting's value; its default where the run does not say; None where the stage has none."""
        return self._config.get(name)

    @property
    def prefers(self) -> bool:
        """Whether it learns from pairs."""
        return self.stage in PREFERENCE_STAGES

    @property
    def last_step(self) -> int:
        return max((self[key].last_step for key in ("loss", "eval_loss") if len(self[key])), default=0)

    @property
    def warm(self) -> int:
        """The step from which neither the learning rate nor beta rises any more."""
        return max(self.setting("warmup_steps") or 0, self.setting("beta_warmup_steps") or 0)

    @property
    def chance(self) -> float:
        """The loss of one who cannot tell the answers of a pair apart: margin 0."""
        if self.setting("loss") == "ipo":
            return float(1 / (2 * self.setting("beta")) ** 2)
        return math.log(2)

    @property
    def floor(self) -> float:
        """The least loss that the settings allow: label smoothing keeps it up, and so does a clamp with a small beta."""
        if self.stage != "dpo" or self.setting("loss") == "ipo":
            return 0.0
        smoothing, clamp = self.setting("label_smoothing") or 0.0, self.setting("margin_clamp")
        logit = math.log((1 - smoothing) / smoothing) if smoothing else math.inf
        if clamp is not None:
            logit = min(logit, self.setting("beta") * clamp)
        if math.isinf(logit):
            return 0.0
        return (1 - smoothing) * math.log1p(math.exp(-logit)) + smoothing * (logit + math.log1p(math.exp(-logit)))
