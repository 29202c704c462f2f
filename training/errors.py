"""What can go wrong in a training process, each with the exit code that tells its supervisor.

The trainer says why in `error.json` (a `Failure`) and with its exit code; nothing else is parsed.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Exit(enum.IntEnum):
    """Exit codes of `python -m training`. Any other code means that the process died: try again."""

    FINISHED = 0
    INPUT = 20
    DATA = 21
    MODEL = 22
    HUB = 23
    MEMORY = 24
    DISK = 25
    DIVERGED = 26
    ENDPOINT = 27
    STOPPED = 30
    LOCKED = 31
    PARENT_GONE = 32


class Failure(BaseModel):
    """The content of `error.json`, and of a run row's `error`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    message: str
    hint: str = ""
    field: str | None = None
    step: int | None = None
    checkpoint: str | None = None


class TrainingError(Exception):
    """Training cannot go on, and trying again would end the same way."""

    exit: ClassVar[Exit] = Exit.INPUT
    code: ClassVar[str] = "input"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        field: str | None = None,
        step: int | None = None,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(
            code=self.code, message=message, hint=hint, field=field, step=step, checkpoint=checkpoint
        )


class InputError(TrainingError):
    """A setting is wrong, or does not fit the others."""


class DataError(TrainingError):
    """A data set cannot be read, or holds nothing to train on."""

    exit = Exit.DATA
    code = "data"


class ModelError(TrainingError):
    """A model or tokenizer cannot be loaded, or does not fit its run."""

    exit = Exit.MODEL
    code = "model"


class HubError(TrainingError):
    """The Hub said no, or could not be reached."""

    exit = Exit.HUB
    code = "hub"


class OutOfMemory(TrainingError):
    """The device has too little memory, even for the smallest micro-batch."""

    exit = Exit.MEMORY
    code = "memory"


class DiskFull(TrainingError):
    """A file could not be written. The last checkpoint still stands."""

    exit = Exit.DISK
    code = "disk"


class Diverged(TrainingError):
    """The loss is not a finite number any more."""

    exit = Exit.DIVERGED
    code = "diverged"


class EndpointError(TrainingError):
    """A model behind an endpoint said no, or could not be reached, however often it was asked."""

    exit = Exit.ENDPOINT
    code = "endpoint"


class Stopped(Exception):
    """Asked to stop: the checkpoint is saved. Not a failure."""


class Locked(Exception):
    """Another trainer holds this run directory."""
