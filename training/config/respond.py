"""The settings of answering a prompt set."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator

from training.config.asking import AskingConfig
from training.config.fields import AnsweringReference, PromptsReference, one_or_several, setting
from training.references import CHECKPOINT, parse_reference


class RespondConfig(AskingConfig):
    """A model answers the prompts of a set, each once."""

    label: ClassVar[str] = "Respond: a model answers prompts"
    takes: ClassVar[frozenset[str]] = frozenset({"prompts", "preference", "chat"})

    stage: Literal["respond"] = "respond"
    model: AnsweringReference = setting(
        title="Model", group="What to answer", right="run:dpo or hf:Qwen/Qwen2.5-0.5B-Instruct",
        help="run:<name>, hf:<Hub id>, path:<local folder>, or api:<endpoint>/<model> of an endpoint that the settings name.",
    )  # fmt: skip
    prompts: PromptsReference = setting(
        "held_out", title="Prompts", group="What to answer", right="held_out or data:my-prompts",
        help="held_out: what the experiment holds out of all training. Else data:<an upload>, hf:<Hub id> or path:<file>; "
        "of pairs and chats, the prompts are taken.",
    )  # fmt: skip
    checkpoints: Annotated[list[str], BeforeValidator(one_or_several)] = setting(
        [], title="Checkpoints", group="What to answer", rare=True, max_length=64, right="100, 200, best",
        help="Of a run, answer from each of these: steps, last or best. Empty: the best alone.",
    )  # fmt: skip

    reuse: bool = setting(
        True, title="Earlier answers", group="Answers", rare=True,
        help="Answers that an earlier run made with the same model and settings are taken. Off: all are made anew, as when a "
        "server has another model under the same name.",
    )  # fmt: skip
    max_new_tokens: int = setting(
        512, title="Longest answer", unit="tokens", group="Answers", ge=1, le=131_072, right="512",
        help="An answer is cut there; how many were is counted and shown.",
    )  # fmt: skip
    temperature: float = setting(
        0.0, title="Temperature", group="Answers", ge=0, le=10, right="0.7",
        help="0: always the likeliest token. Above, tokens are drawn, the more freely the higher.",
    )  # fmt: skip
    top_p: float = setting(
        1.0, title="Top p", group="Answers", gt=0, le=1, rare=True, right="0.95",
        help="Only the likeliest tokens that make up this probability are drawn from.",
    )  # fmt: skip

    @field_validator("checkpoints")
    @classmethod
    def _of_a_run(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if not value:
            return value
        wrong = next((each for each in value if not CHECKPOINT.fullmatch(each)), None)
        if wrong is not None:
            raise ValueError(f"“{wrong[:20]}” is no checkpoint: write best, last or a step, with commas between.")
        model = str(info.data.get("model", ""))
        if not re.fullmatch(r"run:[^?]+", model):
            raise ValueError("Only a run has checkpoints: name it as run:<name>, without ?checkpoint.")
        return list(dict.fromkeys(value))

    def answerers(self) -> dict[str, str]:
        """What tables call each model that answers, and its reference: one, or one a checkpoint."""
        name = self.shown_as or model_label(self.model)
        if not self.checkpoints:
            return {name: self.model}
        return {f"{name}@{each}": f"{self.model}?checkpoint={each}" for each in self.checkpoints}

    def references(self) -> list[tuple[str, str]]:
        answering = self.answerers().values() if self.model else ()  # none yet in a draft whose model is wrong
        return [*(("model", text) for text in answering), ("prompts", self.prompts)]


def model_label(text: str) -> str:
    """What tables call a model: a run's name, a Hub model's without its owner, a folder's, an endpoint's model."""
    reference = parse_reference(text)
    if reference.kind == "api":
        return reference.name.partition("/")[2]
    last = reference.name.rstrip("/").rpartition("/")[2] or reference.name
    checkpoint = reference.options.get("checkpoint")
    return f"{last}@{checkpoint}" if checkpoint else last
