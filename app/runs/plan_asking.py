"""What a run that answers or judges will do, before it does it: what is counted costs time or money."""

from __future__ import annotations

from sqlmodel import Session, col, func, select

from app.errors import AppError
from app.models import Experiment, Prompt, Response
from app.runs.inputs import find_dataset
from app.runs.plan import Line
from app.units import short
from app.winrates import exports, sets
from training.config import AugmentConfig, JudgeConfig, RespondConfig, StageConfig
from training.references import parse_reference


def plan_asking(session: Session, config: StageConfig, owner: Experiment | None) -> list[Line]:
    """The panel's lines."""
    if isinstance(config, RespondConfig):
        return _answering(session, config, owner)
    if isinstance(config, AugmentConfig):
        return _augmenting(session, config)
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


def _augmenting(session: Session, config: AugmentConfig) -> list[Line]:
    rows = _rows(session, config)
    if rows is None:
        return [Line("prompts drawn", "", "until the run starts and counts them")]
    drawn = max(1, round(rows * config.fraction))
    prompts, requests = drawn * (config.new_prompts or 1), "requests" if config.model.startswith("api:") else "answers"
    answers = prompts * config.candidates
    tokens = answers * config.max_new_tokens + drawn * config.new_prompts * max(1, config.max_new_tokens // 2)
    written = Line("new prompts", f"about {prompts:,}", f"{config.new_prompts:,} from each")
    return [
        Line("prompts drawn", f"about {drawn:,}", f"of {rows:,} rows; fewer where prompts repeat or are held out"),
        *([written] if config.new_prompts else []),
        Line(
            requests,
            f"up to {answers:,}",
            f"{config.candidates:,} a prompt; none to a prompt that is empty or a repetition",
        ),
        _labels(config, prompts, answers),
        Line("tokens", f"up to {short(tokens)}", f"{config.max_new_tokens:,} an answer at most, half of that a prompt"),
    ]


def _rows(session: Session, config: AugmentConfig) -> int | None:
    """Rows of all data sets together, where that is known."""
    counts = []
    for text in config.dataset:
        reference = parse_reference(text)
        dataset = find_dataset(session, reference) if reference.kind == "data" else None
        counts.append(dataset.rows if dataset is not None else reference.rows)
    return sum(count for count in counts if count is not None) if None not in counts else None


def _labels(config: AugmentConfig, prompts: int, answers: int) -> Line:
    if config.way == "pairwise":
        each = config.candidates * (config.candidates - 1)
        return Line("judge's requests", f"up to {prompts * each:,}", "each two answers to a prompt, in both orders")
    if config.judge.startswith("api:"):
        return Line("judge's requests", f"up to {answers:,}", "one an answer")
    return Line("scores", f"up to {answers:,}", f"by {config.judge_name}")
