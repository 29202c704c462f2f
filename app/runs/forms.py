"""The launch form, made from a stage's config class: nothing about a field is written here. Pure."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types as limits
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from training.config import GROUPS, StageConfig
from training.config.fields import one_or_several

Control = Literal["reference", "number", "text", "choice", "switch", "lines"]


@dataclass(frozen=True)
class FormField:
    """One row of the form: label, control, help."""

    name: str
    title: str
    help: str
    unit: str
    rare: bool
    required: bool
    control: Control
    default: str  # as text; empty where there is none
    choices: tuple[str, ...] = ()
    offers: str = ""  # of a reference: the list that completes it (app/runs/offers.py)
    commas: bool = False  # several, with commas between
    example: str = ""  # what would be right
    bounds: str = ""  # in words, such as "0 to 0.5"
    whole: bool = False
    optional: bool = False  # empty means none, not the default


@dataclass(frozen=True)
class FormGroup:
    """Fields under one heading."""

    title: str
    fields: tuple[FormField, ...]

    def where(self, *, rare: bool) -> list[FormField]:
        return [field for field in self.fields if field.rare == rare]


def form_groups(config: type[StageConfig]) -> list[FormGroup]:
    """The groups of a stage's form, in the order of training.config.GROUPS."""
    fields = [_form_field(name, info) for name, info in config.model_fields.items() if name != "stage"]
    groups = {name: config.model_fields[name].json_schema_extra for name in config.model_fields}

    def group_of(field: FormField) -> str:
        extra = groups[field.name]
        return str(extra.get("group", "")) if isinstance(extra, dict) else ""

    made = [FormGroup(title, tuple(field for field in fields if group_of(field) == title)) for title in GROUPS]
    return [group for group in made if group.fields]


def _form_field(name: str, info: FieldInfo) -> FormField:
    kind, optional = _without_none(info.annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    kinds = _reference_kinds(info)
    commas = any(getattr(each, "func", None) is one_or_several for each in info.metadata)
    control = "text" if commas and not kinds else _control(kind, kinds)
    return FormField(
        name=name,
        title=info.title or name,
        help=info.description or "",
        unit=str(extra.get("unit", "")),
        rare=bool(extra.get("rare")),
        required=info.is_required(),
        control=control,
        default="" if info.default is PydanticUndefined else as_text(info.default),
        choices=tuple(map(str, get_args(kind))) if control == "choice" else (),
        offers=_offers(kinds),
        commas=commas,
        example=str(extra.get("right", "")),
        bounds=_bounds(info.metadata) if control == "number" else "",
        whole=kind is int,
        optional=optional,
    )


def _offers(kinds: tuple[str, ...]) -> str:
    """Which list completes a reference, by the kinds that it may be of (training.config.fields); empty: none."""
    if kinds == ("run",):
        return "responses"
    told = {"held_out": "prompts", "data": "datasets", "checker": "judges", "api": "answerers", "run": "models"}
    return next((name for kind, name in told.items() if kind in kinds), "")


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        return rest[0], len(rest) < len(get_args(annotation))
    return annotation, False


def _reference_kinds(info: FieldInfo) -> tuple[str, ...]:
    """Kinds of reference that a field takes (training.config.reference_of), empty where it is none."""
    validators = [*info.metadata, *(extra for inner in get_args(info.annotation) for extra in _metadata(inner))]
    return next((each.func.kinds for each in validators if hasattr(getattr(each, "func", None), "kinds")), ())


def _metadata(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())


def _control(kind: Any, reference_kinds: tuple[str, ...]) -> Control:
    if reference_kinds:
        return "reference"
    if get_origin(kind) is Literal:
        return "choice"
    if get_origin(kind) is list:
        return "lines"
    return "switch" if kind is bool else "number" if kind in (int, float) else "text"


def _bounds(metadata: list[Any]) -> str:
    low = next((f"{each.ge:,g}" for each in metadata if isinstance(each, limits.Ge)), "")
    above = next((f"{each.gt:,g}" for each in metadata if isinstance(each, limits.Gt)), "")
    high = next((f"{each.le:,g}" for each in metadata if isinstance(each, limits.Le)), "")
    below = next((f"{each.lt:,g}" for each in metadata if isinstance(each, limits.Lt)), "")
    return f"{low or 'above ' + above} to {high or 'below ' + below}"


def as_text(value: Any) -> str:
    """A config's value as its control shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def texts(config: type[StageConfig], content: Mapping[str, Any]) -> dict[str, str]:
    """What each control shows for a given config; defaults where it says nothing."""
    shown = {}
    for group in form_groups(config):
        for field in group.fields:
            text = as_text(content[field.name]) if field.name in content else field.default
            shown[field.name] = ", ".join(text.split("\n")) if field.control == "reference" or field.commas else text
    return shown


def read(config: type[StageConfig], given: Mapping[str, Any]) -> dict[str, Any]:
    """A config's content from a form's texts: what is left empty is none, or the default; the rest is pydantic's.

    Values that are no text are taken as they are, so that scripts may send typed JSON to the same address.
    """
    fields = {field.name: field for group in form_groups(config) for field in group.fields}
    content: dict[str, Any] = {}
    for name, value in given.items():
        field = fields.get(name)
        if field is None or not isinstance(value, str):
            content[name] = value
        elif not value.strip():
            if field.optional:
                content[name] = None
        elif field.control == "lines":
            content[name] = [line.strip() for line in value.splitlines() if line.strip()]
        else:
            content[name] = value.strip().replace(" ", "") if field.control == "number" else value
    return content
