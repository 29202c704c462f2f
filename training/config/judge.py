"""The settings of judging answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator

from training.config.asking import AskingConfig
from training.config.fields import FileReference, JudgeReference, RunReference, one_or_several, setting
from training.config.respond import model_label
from training.references import parse_reference

Method = Literal["checker", "reward", "nemotron", "pairwise"]


class JudgeConfig(AskingConfig):
    """A judge scores answers one by one, or compares them two by two."""

    label: ClassVar[str] = "Judge: answers are scored or compared"

    stage: Literal["judge"] = "judge"
    judge: JudgeReference = setting(
        title="Judge", group="What to judge", right="run:reward or api:local/judge-model or checker",
        help="A reward model (run:, hf:, path:), a model behind an endpoint (api:<endpoint>/<model>), or checker: the "
        "prompt's own reference decides.",
    )  # fmt: skip
    responses: Annotated[list[RunReference], BeforeValidator(one_or_several)] = setting(
        [], title="Answers of", group="What to judge", max_length=200, right="run:answers-sft, run:answers-dpo",
        help="Respond runs of this experiment, with commas between. Empty: all answers that the experiment has when it starts.",
    )  # fmt: skip
    baseline: str = setting(
        "", title="Against", group="What to judge", max_length=200, right="instruct",
        help="A judge of pairs compares each model with this one alone. Empty: the experiment's baseline, else each with "
        "each. Scores need none: they compare all.",
    )  # fmt: skip

    method: Literal["auto", "reward", "nemotron", "pairwise"] = setting(
        "auto", title="Method", group="Judging", rare=True,
        help="reward: a sequence classifier scores each answer. nemotron: the form of Llama-3.1-Nemotron-70B-Reward, as a "
        "model or behind an endpoint. pairwise: a chat model compares two answers, in both orders. auto: by the model.",
    )  # fmt: skip
    check: Literal["exact", "number", "regex"] = setting(
        "exact", title="Check", group="Judging", rare=True,
        help="Of the checker. exact: the answer is the reference, but for case and spaces at its ends. number: the last "
        "number of both is the same. regex: the reference, a regular expression, is found in the answer.",
    )  # fmt: skip
    instructions: FileReference | None = setting(
        None, title="Instructions", group="Judging", rare=True, right="path:my-judge.txt",
        help="A text file that tells a judge of pairs what to do, with {prompt}, {answer_1} and {answer_2} in it. Empty: "
        "Preflab's own.",
    )  # fmt: skip
    repeat_fraction: float = setting(
        0.0, title="Judged twice", group="Judging", ge=0, le=1, rare=True, right="0.1",
        help="Share of the prompts that are judged a second time, to measure the judge's own noise.",
    )  # fmt: skip

    @field_validator("method")
    @classmethod
    def _fits_the_judge(cls, value: str, info: ValidationInfo) -> str:
        judge = str(info.data.get("judge", ""))
        if value != "auto" and judge == "checker":
            raise ValueError("The checker has no method: leave it at auto.")
        if value == "pairwise" and not judge.startswith("api:"):
            raise ValueError(
                "Pairs are compared by a chat model behind an endpoint: name the judge as api:<endpoint>/<model>."
            )
        if value == "reward" and judge.startswith("api:"):
            raise ValueError("Behind an endpoint, the reward form that is known is nemotron's.")
        return value

    @property
    def way(self) -> Method:
        """How it is judged, `auto` decided by the reference's kind and name."""
        reference = parse_reference(self.judge)
        if reference.kind == "checker":
            return "checker"
        if self.method != "auto":
            return self.method
        if "nemotron" in reference.name.lower() and "reward" in reference.name.lower():
            return "nemotron"
        return "pairwise" if reference.kind == "api" else "reward"

    @property
    def judge_name(self) -> str:
        """As its verdicts carry it: `checker`, `reward:<name>` or `llm:<name>`."""
        if self.way == "checker":
            return "checker"
        return f"{'llm' if self.way == 'pairwise' else 'reward'}:{self.shown_as or model_label(self.judge)}"

    def references(self) -> list[tuple[str, str]]:
        instructions = [("instructions", self.instructions)] if self.instructions else []
        return [("judge", self.judge), *(("responses", text) for text in self.responses), *instructions]
