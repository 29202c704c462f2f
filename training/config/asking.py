"""What the stages that ask a model share, wherever it runs: here, or behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from training.config.fields import StageConfig, setting


class AskingConfig(StageConfig):
    """How a model is run, or an endpoint is asked."""

    shown_as: str = setting(
        "", title="Shown as", group="Answers", max_length=100, rare=True, right="instruct",
        help="What tables call it. Empty: the run's, model's or folder's own name.",
    )  # fmt: skip
    seed: int = setting(
        0, title="Seed", group="Answers", ge=0, le=2**31 - 1, rare=True, right="0",
        help="Of all that is drawn at random.",
    )  # fmt: skip
    concurrency: int = setting(
        4, title="Requests at once", group="Endpoint", ge=1, le=256, rare=True, right="4",
        help="To an endpoint (api:). Elsewhere it means nothing.",
    )  # fmt: skip
    requests_per_minute: float | None = setting(
        None, title="Requests a minute", group="Endpoint", gt=0, le=1e6, rare=True, right="60",
        help="To an endpoint, at most. Empty: as fast as it answers.",
    )  # fmt: skip
    request_timeout: float = setting(
        120.0, title="Longest wait", unit="seconds", group="Endpoint", gt=0, le=86_400, rare=True, right="120",
        help="For an endpoint's answer to one request, before it is asked again.",
    )  # fmt: skip
    request_tries: int = setting(
        6, title="Tries", group="Endpoint", ge=1, le=100, rare=True, right="6",
        help="How often one request is made before the run fails and says why. What was answered is kept.",
    )  # fmt: skip
    micro_batch_size: int | None = setting(
        None, title="Micro-batch size", unit="answers", group="Machine", ge=1, le=65_536, rare=True, right="16",
        help="Answers that go through a model here at once. Empty: found automatically.",
    )  # fmt: skip
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", title="Precision", group="Machine", rare=True,
        help="Of the computation. auto: bf16 where it is faster.",
    )  # fmt: skip

    @field_validator("shown_as")
    @classmethod
    def _on_one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("A name holds no line break or other control character. Leave it out.")
        return value
