"""The stages' configs: the one schema that form, row, `config.json` and trainer share. No torch here.

A field's title, help, group, unit and bounds stand here and nowhere else; the launch form, the CLI's
help and docs/configuration.md are made from them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from training.config.asking import AskingConfig
from training.config.augment import AugmentConfig
from training.config.dpo import DpoConfig
from training.config.fields import GROUPS, StageConfig, reference_of, setting
from training.config.judge import JudgeConfig
from training.config.judging import JudgingConfig
from training.config.respond import RespondConfig
from training.config.reward import RewardConfig
from training.config.sft import SftConfig
from training.config.training import SamplingConfig, TrainingConfig

__all__ = [
    "GROUPS", "STAGES", "AskingConfig", "AugmentConfig", "DpoConfig", "InvalidConfig", "JudgeConfig", "JudgingConfig", "RespondConfig", "RewardConfig",
    "SamplingConfig", "SftConfig", "StageConfig", "TrainingConfig", "explain", "parse_config", "reference_of", "setting",
]  # fmt: skip

NO_TEXT = "Holds half of a surrogate pair (such as \\ud83d alone), which is no character: leave it out."

STAGES: dict[str, type[StageConfig]] = {
    "sft": SftConfig, "dpo": DpoConfig, "reward": RewardConfig, "respond": RespondConfig, "judge": JudgeConfig,
    "augment": AugmentConfig,
}  # fmt: skip
"""Every stage that this version can run, by name. `training/stages/<name>.py` runs it."""


class InvalidConfig(ValueError):
    """A config is wrong. `fields`: what is wrong with each field, in a sentence that says what is right."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {message}" for name, message in fields.items()))
        self.fields = fields


def parse_config(content: dict[str, Any]) -> StageConfig:
    """Validate a stage's config. Raises InvalidConfig, which names every bad field."""
    stage = content.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        raise InvalidConfig({"stage": f"There is no stage “{str(stage)[:40]}”. This version has: {', '.join(STAGES)}."})
    try:
        return STAGES[stage].model_validate(content)
    except ValidationError as error:
        raise InvalidConfig(explain(error, STAGES[stage])) from None


def explain(error: ValidationError, model: type[BaseModel]) -> dict[str, str]:
    """One sentence for each field that a validation found wrong; the first problem of each."""
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "config"
        found.setdefault(name, _sentence(problem, model.model_fields.get(name)))
    return found


def _sentence(problem: Any, field: Any) -> str:
    context = problem.get("ctx", {})
    extra = field.json_schema_extra if field is not None and isinstance(field.json_schema_extra, dict) else {}
    right = f" For example: {extra['right']}." if extra.get("right") else ""
    bounds = {
        "greater_than": "Must be above {gt}.",
        "greater_than_equal": "Must be {ge} or more.",
        "less_than": "Must be below {lt}.",
        "less_than_equal": "Must be {le} or less.",
    }
    kind = problem["type"]
    if kind in bounds:
        return bounds[kind].format(**{key: _plain(value) for key, value in context.items()}) + right
    if kind == "value_error":
        return str(context.get("error", problem["msg"]))
    sentences = {
        "missing": "Needed.",
        "too_short": "Needed.",
        "extra_forbidden": "There is no such setting.",
        "literal_error": f"Choose one of: {context.get('expected', '')}.".replace("'", ""),
        "finite_number": "Must be a finite number.",
        "string_unicode": NO_TEXT,
    }
    if kind.startswith(("int", "float")):
        whole = "whole " if kind.startswith("int") else ""
        return f"Must be a {whole}number." + right
    return sentences.get(kind, f"{problem['msg']}.") + (right if kind in {"missing", "too_short"} else "")


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
