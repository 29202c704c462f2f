"""Arrays and counts that belong together, as one .npz file."""

from __future__ import annotations

import os
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import numpy as np


class Saved:
    """What a dataclass of arrays and whole numbers inherits, to be saved and loaded again."""

    def save(self, path: Path) -> None:
        """Write an .npz file, whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        try:
            with temporary.open("wb") as file:
                np.savez(file, **content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises FileNotFoundError; ValueError where the file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as content:
                found = {field.name: content[field.name] for field in fields(cls)}  # type: ignore[arg-type]
            return cls(**{name: value if value.ndim else int(value) for name, value in found.items()})
        except (KeyError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
