"""The settings of synthetic data augmentation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator

from training.config.fields import AnsweringReference, DatasetReference, FileReference, one_or_several, setting
from training.config.judging import JudgingConfig


class AugmentConfig(JudgingConfig):
    """Synthetic preference pairs: a model writes prompts and several answers to each, a judge picks best and worst."""

    label: ClassVar[str] = "Augment: synthetic preference pairs"
    takes: ClassVar[frozenset[str]] = frozenset({"preference", "prompts", "chat"})

    stage: Literal["augment"] = "augment"
    model: AnsweringReference = setting(
        title="Writer", group="What to train", right="run:sft",
        help="Writes the new prompts and the answers: the model that is to be trained, or a teacher as api:<endpoint>/<model>.",
    )  # fmt: skip
    dataset: Annotated[list[DatasetReference], BeforeValidator(one_or_several)] = setting(
        title="Dataset", group="What to train", right="data:my-pairs", min_length=1, max_length=16,
        help="Where prompts are drawn from: pairs, prompts or chats. Several, with commas between, are joined.",
    )  # fmt: skip

    fraction: float = setting(
        0.1, title="Share of the prompts", group="Synthesis", gt=0, le=1, right="0.1",
        help="So many of the data's prompts are drawn at random, to write new ones from.",
    )  # fmt: skip
    new_prompts: int = setting(
        1, title="New prompts", unit="of each drawn", group="Synthesis", ge=0, le=64, right="1", validate_default=True,
        help="How many prompts are written from each that was drawn. 0: those drawn are answered anew.",
    )  # fmt: skip
    candidates: int = setting(
        4, title="Answers", unit="a prompt", group="Synthesis", ge=2, le=64, right="4",
        help="How many answers are drawn for each prompt, for the judge to choose from.",
    )  # fmt: skip
    temperature: float = setting(
        0.8, title="Temperature", group="Synthesis", gt=0, le=10, right="0.8",
        help="Of prompts and answers: the higher, the more they differ.",
    )  # fmt: skip
    top_p: float = setting(
        1.0, title="Top p", group="Synthesis", gt=0, le=1, rare=True, right="0.95",
        help="Only the likeliest tokens that make up this probability are drawn from.",
    )  # fmt: skip
    max_new_tokens: int = setting(
        512, title="Longest answer", unit="tokens", group="Synthesis", ge=1, le=131_072, right="512",
        help="An answer that does not end by then counts as truncated, and is dropped. Prompts may be half as long.",
    )  # fmt: skip
    writing: FileReference | None = setting(
        None, title="Writing instructions", group="Synthesis", rare=True, right="path:my-writer.txt",
        help="A text file that asks for a new prompt, with {prompt} in it. With {new_prompt} behind that it is a text that "
        "the model goes on with there: for one that follows no instructions. Empty: Preflab's own.",
    )  # fmt: skip

    max_repetition: float = setting(
        0.5, title="Most repetition", group="Filters", ge=0, le=1, rare=True, right="0.5",
        help="Share of an answer's four-word runs that it has said before, from 0 to 1. A pair is dropped where one of its "
        "two answers has more.",
    )  # fmt: skip
    same_script: bool = setting(
        True, title="Same script", group="Filters", rare=True,
        help="A pair is dropped where one of its answers is in another script (Latin, Cyrillic, Han, ...) than its prompt, "
        "unless the prompt asks for one.",
    )  # fmt: skip
    max_leak_similarity: float = setting(
        0.9, title="Leaked from", group="Filters", gt=0, le=1, right="0.9",
        help="Cosine similarity to a held-out prompt from which a new prompt is dropped: the test would be in the training.",
    )  # fmt: skip
    max_prompt_similarity: float = setting(
        0.95, title="Near-duplicate from", group="Filters", gt=0, le=1, right="0.95",
        help="Cosine similarity to a prompt of the data, or to an earlier new one, from which a new prompt is dropped.",
    )  # fmt: skip
    max_answer_similarity: float = setting(
        0.98, title="Alike from", group="Filters", gt=0, le=1, right="0.98",
        help="Cosine similarity of a pair's two answers from which it is dropped: it would teach next to nothing.",
    )  # fmt: skip
    min_margin: float = setting(
        0.0, title="Least margin", group="Filters", ge=0, le=1e6, right="0.5",
        help="Pairs whose two scores lie closer together are dropped. Equal scores always are.",
    )  # fmt: skip

    @field_validator("new_prompts")
    @classmethod
    def _has_references(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("judge") == "checker":
            raise ValueError(
                "A new prompt has no reference for the checker: set New prompts to 0, which answers those drawn anew, or "
                "take another judge."
            )
        return value

    def references(self) -> list[tuple[str, str]]:
        files = [(name, text) for name in ("instructions", "writing") if (text := getattr(self, name))]
        return [("model", self.model), *(("dataset", text) for text in self.dataset), ("judge", self.judge), *files]
