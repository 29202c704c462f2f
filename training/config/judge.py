"""The settings of judging answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from training.config.fields import RunReference, one_or_several, setting
from training.config.judging import JudgingConfig


class JudgeConfig(JudgingConfig):
    """A judge scores answers one by one, or compares them two by two."""

    label: ClassVar[str] = "Judge: answers are scored or compared"

    stage: Literal["judge"] = "judge"
    responses: Annotated[list[RunReference], BeforeValidator(one_or_several)] = setting(
        [], title="Answers of", group="What to judge", max_length=200, right="run:answers-sft, run:answers-dpo",
        help="Respond runs of this experiment, with commas between. Empty: all answers that the experiment has when it starts.",
    )  # fmt: skip
    baseline: str = setting(
        "", title="Against", group="What to judge", max_length=200, right="instruct",
        help="A judge of pairs compares each model with this one alone. Empty: the experiment's baseline, else each with "
        "each. Scores need none: they compare all.",
    )  # fmt: skip

    repeat_fraction: float = setting(
        0.0, title="Judged twice", group="Judging", ge=0, le=1, rare=True, right="0.1",
        help="Share of the prompts that are judged a second time, to measure the judge's own noise.",
    )  # fmt: skip

    def references(self) -> list[tuple[str, str]]:
        instructions = [("instructions", self.instructions)] if self.instructions else []
        return [("judge", self.judge), *(("responses", text) for text in self.responses), *instructions]
