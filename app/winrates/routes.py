"""The pages of results beside the experiment's own: answers side by side, leaderboard, agreement of judges."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.auth import Role, require
from app.experiments import service as experiments
from app.web import database, page
from app.winrates import rails, reading, tables
from app.winrates.api import api
from app.winrates.choices import Asked, choose_judge
from app.winrates.makers import makers

__all__ = ["api", "pages"]

pages = APIRouter(dependencies=[require(Role.VIEWER)])

MOST_PAIRS = 30  # pairs of judges that the page lists


@pages.get("/experiments/{experiment_id}/answers")
def answers_page(
    request: Request,
    experiment_id: int,
    model: str = "",
    baseline: str = "",
    judge: str = "",
    prompts: str = "",
    outcome: str = "",
    category: str = "",
) -> Response:
    """Two models' answers to the same prompts, with what a judge said of them."""
    number = request.query_params.get("page", "")
    with database(request).read() as session:
        owner = experiments.get(session, experiment_id)
        found = reading.read(
            session, owner, Asked(judge, baseline, prompts), model, outcome, category, page_number(number)
        )
    return page(request, "winrates/answers.html", experiment=owner, reading=found)


def page_number(text: str) -> int:
    """A page of an address; what is none is the first."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 1


@pages.get("/experiments/{experiment_id}/leaderboard")
def leaderboard_page(request: Request, experiment_id: int, judge: str = "", prompts: str = "") -> Response:
    """All models in a Bradley-Terry ranking by one judge."""
    with database(request).read() as session:
        owner = experiments.get(session, experiment_id)
        choice = choose_judge(session, owner, Asked(judge, prompts=prompts))
        judged = choice is not None and choice.judge
        ranking = tables.leaderboard(session, owner, choice.judge, choice.prompts) if choice and judged else None
        made = makers(session, owner, choice.prompts) if choice else {}
    rows = ranking.rows if ranking else []
    scale = rails.of_elo(row[edge] for row in rows for edge in ("elo", "ci_low", "ci_high"))
    shown = [{**row, "maker": reading.made_by(made, row["model"]), "rail": _elo_rail(scale, row)} for row in rows]
    return page(
        request, "winrates/leaderboard.html", experiment=owner, choice=choice, ranking=ranking, rows=shown, scale=scale
    )


def _elo_rail(scale: rails.Scale, row: dict[str, Any]) -> rails.Rail | None:
    return None if row["elo"] is None else scale.rail(row["elo"], row["ci_low"], row["ci_high"])


@pages.get("/experiments/{experiment_id}/agreement")
def agreement_page(request: Request, experiment_id: int, prompts: str = "") -> Response:
    """Judges against each other."""
    with database(request).read() as session:
        owner = experiments.get(session, experiment_id)
        choice = choose_judge(session, owner, Asked(prompts=prompts))
        found = tables.agreement(session, owner, choice.prompts) if choice and choice.judge else None
    rows = found.rows if found else []
    return page(
        request,
        "winrates/agreement.html",
        experiment=owner,
        choice=choice,
        found=found,
        rows=rows[:MOST_PAIRS],
        more=max(0, len(rows) - MOST_PAIRS),
    )
