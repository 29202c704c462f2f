"""Named places where a test may end the process as a power cut would: nothing is flushed, nothing cleaned up.

`PREFLAB_FAILPOINT=before_checkpoint_rename` dies at the first such place; `before_checkpoint_rename:3` at the third.
Without the variable a failpoint does nothing.
"""

from __future__ import annotations

import os
from collections import Counter

_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die here, where the environment names this place."""
    wanted = os.environ.get("PREFLAB_FAILPOINT")
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place != name:
        return
    _passed[name] += 1
    if _passed[name] >= int(count or 1):
        os._exit(137)
