"""docs/configuration.md, made from the settings and the stages' configs: `python -m app.docs` writes it."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.settings import Settings
from training.config import GROUPS, STAGES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

HEAD = """# Configuration

Made by `python -m app.docs` from [app/settings.py](../app/settings.py) and
[training/config](../training/config); a test compares it. Change it there.

## The installation

Each setting is an environment variable, or a line of a file `.env` in the folder where `preflab` starts.

| variable | default | means |
|---|---|---|
"""

STAGE_HEAD = """
## Stage `{stage}`

{label}. In the launch form, in an experiment file, or by `--set KEY=VALUE`.
"""

GROUP_HEAD = """
### {group}

| key | default | values | means |
|---|---|---|---|
"""


def configuration() -> str:
    """The whole page."""
    rows = "".join(_setting(name, field) for name, field in Settings.model_fields.items())
    return HEAD + rows + "".join(_stage(stage) for stage in STAGES)


def _setting(name: str, field: FieldInfo) -> str:
    default = str(field.default) if isinstance(field.default, Path) else field.default
    return f"| `PREFLAB_{name.upper()}` | {_shown(default)} | {field.description} |\n"


def _stage(stage: str) -> str:
    config = STAGES[stage]
    page = STAGE_HEAD.format(stage=stage, label=config.label)
    for group in GROUPS:
        fields = {name: field for name, field in config.model_fields.items() if _extra(field).get("group") == group}
        if fields:
            page += GROUP_HEAD.format(group=group) + "".join(_field(name, field) for name, field in fields.items())
    return page


def _field(name: str, field: FieldInfo) -> str:
    default = "needed" if field.is_required() else _shown(field.default)
    return f"| `{name}` | {default} | {_values(field)} | {field.title}. {_escaped(field.description)} |\n"


def _escaped(text: str | None) -> str:
    return (text or "").replace("<", "\\<")


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _values(field: FieldInfo) -> str:
    """The type, the bounds and the unit, in words."""
    kinds = [kind for kind in _parts(field.annotation) if kind is not type(None)]
    if get_origin(kinds[0]) is Literal:
        words = ", ".join(f"`{choice}`" for choice in get_args(kinds[0]))
    else:
        words = {int: "whole number", float: "number", bool: "`true`, `false`"}.get(kinds[0], "text") + _bounds(field)
        words = "texts" if get_origin(kinds[0]) is list else words
    unit = f" {unit}" if (unit := _extra(field).get("unit")) else ""
    return words + unit + (" or empty" if len(kinds) < len(_parts(field.annotation)) else "")


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _bounds(field: FieldInfo) -> str:
    found = []
    for limit in field.metadata:
        for kind, sign in (
            (annotated_types.Ge, "≥"),
            (annotated_types.Gt, ">"),
            (annotated_types.Le, "≤"),
            (annotated_types.Lt, "<"),
        ):
            if isinstance(limit, kind):
                value: Any = getattr(limit, kind.__name__.lower())
                found.append(f" {sign} {value:,}" if isinstance(value, int) else f" {sign} {value:g}")
    return ",".join(found)


def _shown(default: Any) -> str:
    if default is PydanticUndefined or default in ("", []):
        return "empty"
    if default is None:
        return "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(configuration())
