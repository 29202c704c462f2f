"""Which runs made the models of a table: their colours, and where they link to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_
from sqlmodel import Session, col, func, select

from app.models import Experiment, Prompt, Response, Run
from app.runs.queries import colour
from training.references import BadReference, parse_reference


@dataclass(frozen=True)
class Maker:
    """The run that trained a model, where one did, and the run whose answers these are. `colour`: of the first."""

    trained: dict[str, Any] | None = None  # {"id", "name"}
    answered: dict[str, Any] | None = None

    @property
    def colour(self) -> int | None:
        run = self.trained or self.answered
        return colour(run["id"]) if run else None


NOBODY = Maker()  # of a model whose answers came from elsewhere


def makers(session: Session, experiment: Experiment, set_name: str) -> dict[str, Maker]:
    """By model, for those whose answers a run made. Three queries, however many models there are."""
    answers = select(Response.model, func.max(Response.run_id)).join(Prompt, col(Prompt.id) == Response.prompt_key)
    answers = answers.where(Prompt.experiment_id == experiment.id, Prompt.set_name == set_name)
    by_model = {model: run for model, run in session.exec(answers.group_by(Response.model)) if run is not None}
    statement = select(Run).where(col(Run.id).in_(set(by_model.values())))
    answering = {run.id: run for run in session.exec(statement)} if by_model else {}
    wanted = {run.id: _run_named(run) for run in answering.values()}
    trained = _trained(session, experiment, {name for name in wanted.values() if name})
    return {
        model: Maker(trained.get(wanted.get(run_id) or ""), _brief(answering[run_id]))
        for model, run_id in by_model.items()
        if run_id in answering
    }


def _run_named(run: Run) -> str | None:
    """The run whose model a respond run asks, as its reference names it."""
    try:
        reference = parse_reference(str(run.config.get("model", "")))
    except BadReference:
        return None
    return reference.name if reference.kind == "run" else None


def _trained(session: Session, experiment: Experiment, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Runs by the names that references have for them, as app.runs.inputs.find_run finds them; in one query."""
    wanted = sorted(names)
    if not wanted:
        return {}
    ids = [int(name) for name in wanted if name.isascii() and name.isdecimal() and len(name) < 10]
    last = {name.rpartition("/")[2] for name in wanted}
    statement = select(Run, Experiment).join(Experiment, col(Run.experiment_id) == col(Experiment.id))
    found = session.exec(statement.where(or_(col(Run.name).in_(last), col(Run.id).in_(ids)))).all()
    known = {f"{owner.name}/{run.name}": run for run, owner in found}
    known |= {str(run.id): run for run, _ in found if run.id in ids}
    known |= {run.name: run for run, _ in found if run.experiment_id == experiment.id}
    return {name: _brief(known[name]) for name in wanted if name in known}


def _brief(run: Run) -> dict[str, Any]:
    return {"id": run.id, "name": run.name}
