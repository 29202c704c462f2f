"""How answers are judged: what a judge run and an augment run share."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from training.config.asking import AskingConfig
from training.config.fields import FileReference, JudgeReference, setting
from training.config.respond import model_label
from training.references import parse_reference

Method = Literal["checker", "reward", "nemotron", "pairwise"]


class JudgingConfig(AskingConfig):
    """Who judges, and how."""

    judge: JudgeReference = setting(
        title="Judge", group="What to judge", right="run:reward or api:local/judge-model or checker",
        help="A reward model (run:, hf:, path:), a model behind an endpoint (api:<endpoint>/<model>), or checker: the "
        "prompt's own reference decides.",
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
