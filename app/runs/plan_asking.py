"""What a run that answers or judges will do, before it does it: what is counted costs time or money."""

from __future__ import annotations

from sqlmodel import Session, col, func, select

from app.errors import AppError
from app.models import Experiment, Prompt, Response
from app.runs.inputs import find_dataset
from app.runs.plan import Line
from app.units import short
from app.winrates import exports, sets
from training.config import JudgeConfig, RespondConfig, StageConfig
from training.references import parse_reference


def plan_asking(session: Session, config: StageConfig, owner: Experiment | None) -> list[Line]:
    """The panel's lines."""
    if isinstance(config, RespondConfig):
        return _answering(session, config, owner)
    return _judging(session, config, owner) if isinstance(config, JudgeConfig) else []


def _answering(session: Session, config: RespondConfig, owner: Experiment | None) -> list[Line]:
    count, models = _prompts(session, config, owner), config.answerers()
    if count is None:
        return [Line("prompts", "", "until the run starts and counts them")]
    answers = count * len(models)
    each = "one a prompt" if len(models) == 1 else f"of {len(models)} checkpoints each"
    asked = "requests" if config.model.startswith("api:") else "answers"
    return [
        Line("prompts", f"{count:,}", config.prompts),
        Line(asked, f"{answers:,}", f"{each}; answers that were made before are taken again"),
        Line(
            "tokens", f"up to {short(answers * config.max_new_tokens)}", f"{config.max_new_tokens:,} an answer at most"
        ),
    ]


def _prompts(session: Session, config: RespondConfig, owner: Experiment | None) -> int | None:
    """How many prompts there are, where that is known."""
    reference = parse_reference(config.prompts)
    if reference.kind == "data":
        dataset = find_dataset(session, reference)
        return dataset.rows if dataset is not None and dataset.kind == "prompts" else None
    held_out = owner.spec.get("held_out") if owner is not None and reference.kind == "held_out" else None
    return held_out.get("n") if isinstance(held_out, dict) else reference.rows


def _judging(session: Session, config: JudgeConfig, owner: Experiment | None) -> list[Line]:
    unknown = [Line("answers", "", "until they are there")]
    if owner is None or owner.id is None:
        return unknown
    try:
        chosen = sets.choose_set(session, owner, exports.set_of_runs(session, owner, config))
    except AppError:
        return unknown
    models = exports.models_of_runs(session, owner, config)
    statement = select(Response.prompt_key, func.count()).join(Prompt, col(Prompt.id) == col(Response.prompt_key))
    statement = statement.where(Prompt.experiment_id == owner.id, Prompt.set_name == chosen)
    if models is not None:
        statement = statement.where(col(Response.model).in_(models))
    answered = [count for _, count in session.exec(statement.group_by(col(Response.prompt_key)))]
    lines = [Line("answers", f"{sum(answered):,}", f"to {len(answered):,} prompts of {chosen}")]
    if config.way != "pairwise":
        return lines
    baseline = config.baseline or owner.spec.get("baseline")
    pairs = sum(count - 1 if baseline else count * (count - 1) // 2 for count in answered)
    requests = round(2 * pairs * (1 + config.repeat_fraction))
    return [*lines, Line("requests", f"about {requests:,}", f"{pairs:,} pairs, each in both orders")]
