"""Where a run that answers or judges leads: to its answers, and to the result of its experiment."""

from __future__ import annotations

from sqlmodel import Session

from app.errors import Invalid
from app.models import Experiment, Run
from app.runs import states
from app.winrates import exports
from app.winrates.choices import Asked
from training.config import InvalidConfig, JudgeConfig, RespondConfig, parse_config


def result_links(session: Session, run: Run, owner: Experiment) -> list[dict[str, str]]:
    """`{"title", "address"}` of each; none for a run that trains. The answers are there once it has finished."""
    try:
        config = parse_config(run.config)
    except InvalidConfig:
        return []  # another version launched it
    base, finished = f"/experiments/{owner.id}", run.state == states.FINISHED
    if isinstance(config, RespondConfig):
        asked = Asked(prompts=config.prompts if finished else "")
        answers = asked.query(model=next(iter(config.answerers())))
    elif isinstance(config, JudgeConfig):
        asked = Asked(
            config.judge_name if finished else "", prompts=_prompts(session, owner, config) if finished else ""
        )
        answers = asked.query()
    else:
        return []
    result = {"title": "The experiment's result", "address": _address(base, asked)}
    reading = {"title": "Its answers" if config.stage == "respond" else "What it judged", "address": f"{base}/answers?{answers}"}  # fmt: skip
    return [reading, result] if finished else [result]


def _prompts(session: Session, owner: Experiment, config: JudgeConfig) -> str:
    """The set that was judged, where the run names answers of one."""
    try:
        return exports.set_of_runs(session, owner, config)
    except Invalid:
        return ""


def _address(base: str, asked: Asked) -> str:
    query = asked.query()
    return f"{base}?{query}" if query else base
