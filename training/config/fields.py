"""What a config's field is: its title, help, group, unit and bounds, and the references that it may hold."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from training.references import KINDS, parse_reference

GROUPS = (
    "What to train", "What to answer", "What to judge", "Data", "Preference", "Answers", "Synthesis", "Judging", "Filters", "Optimisation", "Evaluation and checkpoints", "Samples", "LoRA", "Endpoint", "Machine",
)  # fmt: skip


def setting(
    default: Any = ...,
    *,
    title: str,
    help: str,
    group: str,
    unit: str = "",
    rare: bool = False,
    right: str = "",
    **bounds: Any,
) -> Any:
    """A config field with all that a form needs. `right`: an example that an error message offers."""
    extra: dict[str, Any] = {"group": group, "unit": unit, "rare": rare, "right": right}
    return Field(default, title=title, description=help, json_schema_extra=extra, **bounds)


def reference_of(*kinds: str) -> AfterValidator:
    """A validator of reference texts of these kinds."""
    assert set(kinds) <= set(KINDS)

    def check(text: str) -> str:
        parse_reference(text, kinds)
        return text

    check.kinds = kinds  # type: ignore[attr-defined]  # the form offers what fits
    return AfterValidator(check)


def one_or_several(value: Any) -> Any:
    """A single reference, or several with commas between, as a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


ModelReference = Annotated[str, reference_of("hf", "run", "path", "new")]
DatasetReference = Annotated[str, reference_of("hf", "run", "data", "path")]
AnsweringReference = Annotated[str, reference_of("hf", "run", "path", "api")]
PromptsReference = Annotated[str, reference_of("held_out", "data", "hf", "path")]
JudgeReference = Annotated[str, reference_of("checker", "run", "hf", "path", "api")]
RunReference = Annotated[str, reference_of("run")]
FileReference = Annotated[str, reference_of("path")]


class StageConfig(BaseModel):
    """What every stage's config has."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    stage: str
    priority: int = setting(
        0, title="Priority", help="Higher runs first; within one priority, first come, first served.",
        group="Machine", ge=-100, le=100, rare=True,
    )  # fmt: skip

    label: ClassVar[str] = ""  # what the form's choice of stages calls it
    takes: ClassVar[frozenset[str]] = frozenset()  # the kinds of data that it trains on (training.data.rows.Kind)

    def references(self) -> list[tuple[str, str]]:
        """(field, text) of every reference in this config, in the order of the fields."""
        raise NotImplementedError
