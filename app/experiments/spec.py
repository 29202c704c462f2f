"""The experiment file: what presets are, what `preflab launch FILE` takes, what the form can show and load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import Invalid, NotFound
from training.config import (
    InvalidConfig,
    JudgeConfig,
    RespondConfig,
    StageConfig,
    explain,
    parse_config,
    reference_of,
    setting,
)
from training.references import NAME, parse_reference
from training.rundir import HeldOut

NOTHING_HELD_OUT = (
    "This experiment holds no prompts out. Give its file a held_out section, or name prompts as data:<upload>, "
    "hf:<Hub id> or path:<file>."
)
PRESETS = Path(__file__).resolve().parents[2] / "training" / "presets"


HeldOutReference = Annotated[str, reference_of("hf", "data", "path")]


class HeldOutSpec(BaseModel):
    """The section `held_out`: prompts that are drawn before anything trains, and that no run may learn."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    dataset: HeldOutReference = setting(
        title="Data set", group="Held out", right="hf:<owner>/<name>?split=.. or data:<an upload>",
        help="Prompts, chats or pairs: hf:<Hub id>, data:<an upload> or path:<file>.",
    )  # fmt: skip
    n: int | None = setting(
        None, title="Prompts", group="Held out", ge=1, le=1_000_000, right="500",
        help="How many distinct prompts are held out. Empty: all.",
    )  # fmt: skip
    seed: int = setting(0, title="Seed", group="Held out", ge=0, le=2**31 - 1, right="0", help="Which are drawn.")
    similarity: float = setting(
        HeldOut.model_fields["similarity"].default, title="Similarity", group="Held out", gt=0, le=1, right="0.85",
        help="Cosine of embeddings from which two prompts ask the same. 1: only equal prompts count.",
    )  # fmt: skip


class ExperimentSpec(BaseModel):
    """The file's shape; the runs are validated one by one by `stage_configs`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    question: str = Field("", max_length=2000)
    baseline: str | None = None
    primary_judge: str | None = None
    held_out: HeldOutSpec | None = None
    runs: dict[str, dict[str, Any]] = Field(min_length=1, max_length=200)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a spec: its valid config, and the names of the runs of the same spec that it needs."""

    name: str
    config: StageConfig
    needs: tuple[str, ...]


def parse_spec(content: Any) -> ExperimentSpec:
    """Raises Invalid, which names each bad field."""
    if not isinstance(content, dict):
        raise Invalid("An experiment file is a mapping with name and runs.", "See docs/experiments.md for an example.")
    try:
        return ExperimentSpec.model_validate(content)
    except ValidationError as error:
        fields = explain(error, ExperimentSpec)
        if fields.pop("held_out", None):
            fields |= _wrong_in_held_out(content["held_out"])
        raise Invalid("The experiment is not valid: " + _joined(fields), fields=fields) from None


def _wrong_in_held_out(content: Any) -> dict[str, str]:
    """What is wrong with each field of the section, named as in the file."""
    if not isinstance(content, dict):
        return {"held_out": 'Write {dataset: "hf:<owner>/<name>", n: 500, seed: 0}.'}
    try:
        HeldOutSpec.model_validate(content)
    except ValidationError as error:
        return {f"held_out.{name}": sentence for name, sentence in explain(error, HeldOutSpec).items()}
    return {}


def plan(spec: ExperimentSpec) -> list[PlannedRun]:
    """Validate every run and put parents before children. Raises Invalid: fields are named `run.field`."""
    fields: dict[str, str] = {}
    planned: dict[str, PlannedRun] = {}
    for name, content in spec.runs.items():
        if not NAME.fullmatch(name):
            fields[name[:100]] = "A run's name has letters, digits, dots, dashes and underscores, 100 at most."
            continue
        try:
            config = parse_config(content)
        except InvalidConfig as error:
            fields.update({f"{name}.{field}": message for field, message in error.fields.items()})
            continue
        if isinstance(config, RespondConfig) and config.prompts == "held_out" and spec.held_out is None:
            fields[f"{name}.prompts"] = NOTHING_HELD_OUT
        config = _completed(config, spec)
        planned[name] = PlannedRun(name, config, _needs(config, spec.runs))
    fields |= _unknown_names(spec, planned)
    if fields:
        raise Invalid("The experiment is not valid: " + _joined(fields), fields=fields)
    return _parents_first(planned)


def _unknown_names(spec: ExperimentSpec, planned: dict[str, PlannedRun]) -> dict[str, str]:
    """A baseline that no run of the file answers as, or a judge that none judges as: a misspelling, seen before training."""
    configs = [run.config for run in planned.values()]
    models = [name for each in configs if isinstance(each, RespondConfig) for name in each.answerers()]
    judges = [each.judge_name for each in configs if isinstance(each, JudgeConfig)]
    wrong = {}
    if spec.baseline and models and spec.baseline not in models:
        wrong["baseline"] = (
            f"No run answers as “{spec.baseline[:60]}”; there are: {', '.join(models)}. Leave it out where its answers are "
            "to be imported, and choose it by --baseline."
        )
    known = {"human", *judges, *(part for name in judges for part in name.split(":", 1))}
    if spec.primary_judge and judges and spec.primary_judge not in known:
        wrong["primary_judge"] = f"No run judges as “{spec.primary_judge[:60]}”; there are: {', '.join(judges)}."
    return wrong


def _completed(config: StageConfig, spec: ExperimentSpec) -> StageConfig:
    """A judge run that says nothing else judges all answers of the file, and holds them against its baseline."""
    if not isinstance(config, JudgeConfig):
        return config
    answers = [f"run:{name}" for name, run in spec.runs.items() if run.get("stage") == "respond"]
    changes = {"responses": config.responses or answers, "baseline": config.baseline or spec.baseline or ""}
    return config.model_copy(update=changes)


def _needs(config: StageConfig, names: dict[str, Any]) -> tuple[str, ...]:
    references = [parse_reference(text) for _, text in config.references()]
    return tuple(dict.fromkeys(r.name for r in references if r.kind == "run" and r.name in names))


def _parents_first(planned: dict[str, PlannedRun]) -> list[PlannedRun]:
    ordered: dict[str, PlannedRun] = {}
    while len(ordered) < len(planned):
        ready = [run for run in planned.values() if run.name not in ordered and set(run.needs) <= ordered.keys()]
        if not ready:
            names = ", ".join(name for name in planned if name not in ordered)
            raise Invalid(f"These runs need each other in a circle: {names}.")
        ordered.update({run.name: run for run in ready})
    return list(ordered.values())


def presets() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load(name_or_file: str) -> ExperimentSpec:
    """A preset's name, or a YAML file's path. Raises NotFound or Invalid."""
    path = PRESETS / f"{name_or_file}.yaml" if name_or_file in presets() else Path(name_or_file)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        raise NotFound(
            f"There is no preset and no readable file “{name_or_file}”.", f"Presets: {', '.join(presets())}."
        ) from None
    return parse_yaml(text)


def load_preset(name: str) -> ExperimentSpec:
    """A preset, and nothing else: never a file that a request names. Raises NotFound."""
    if name not in presets():
        raise NotFound(f"There is no preset “{name[:100]}”.", f"There are: {', '.join(presets())}.")
    return load(name)


def parse_yaml(text: str) -> ExperimentSpec:
    """Raises Invalid, with the line of a mistake in the YAML itself."""
    try:
        return parse_spec(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise Invalid(f"This is not YAML{where}: {getattr(error, 'problem', None) or error}.") from None
    except RecursionError:
        raise Invalid("This YAML is nested too deeply.") from None


def _joined(fields: dict[str, str]) -> str:
    return " ".join(f"{name}: {message}" for name, message in fields.items())
