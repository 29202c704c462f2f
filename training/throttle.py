"""Saying things a few times a second at most."""

from __future__ import annotations

import time


class Throttle:
    """Ready at once, and then when `seconds` have passed since it last was."""

    def __init__(self, seconds: float = 0.4) -> None:
        self._seconds = seconds
        self._next = 0.0

    def ready(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
