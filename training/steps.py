"""How long a run is. The web side plans with these functions too, so no torch here."""

from __future__ import annotations

import math


def examples_of_run(count: int, epochs: float) -> int:
    """How many of `count` examples the epochs go through, each counted as often as it is seen; at least one."""
    return max(1, round(epochs * count))


def total_steps(count: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps`, or what the epochs make, the last step perhaps with fewer examples."""
    return max_steps or math.ceil(examples_of_run(count, epochs) / batch_size)
