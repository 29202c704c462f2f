"""Results as JSON, and answers and verdicts as files: the same verbs as the pages and the CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app.auth import Role, require
from app.datasets.upload import uploaded
from app.experiments import service as experiments
from app.models import Experiment
from app.web import database
from app.winrates import exports, sets, tables
from app.winrates.imports import import_responses, import_verdicts

api = APIRouter(tags=["results"])

VIEWER, RUNNER = [require(Role.VIEWER)], [require(Role.RUNNER)]
Rows = Callable[[Session, Experiment, str], Iterator[dict[str, Any]]]


@api.get("/experiments/{experiment_id}/winrate", dependencies=VIEWER)
def show_winrate(
    request: Request, experiment_id: int, judge: str = "", baseline: str = "", prompts: str = ""
) -> dict[str, Any]:
    """Models against a baseline by one judge: rates, comparisons, findings, and what to know before believing them."""
    with database(request).read() as session:
        owner = experiments.get(session, experiment_id)
        return tables.winrate(session, owner, judge, baseline, prompts).as_json()


@api.get("/experiments/{experiment_id}/leaderboard", dependencies=VIEWER)
def show_leaderboard(request: Request, experiment_id: int, judge: str = "", prompts: str = "") -> dict[str, Any]:
    """All models in a Bradley-Terry ranking by one judge."""
    with database(request).read() as session:
        return tables.leaderboard(session, experiments.get(session, experiment_id), judge, prompts).as_json()


@api.get("/experiments/{experiment_id}/agreement", dependencies=VIEWER)
def show_agreement(request: Request, experiment_id: int, prompts: str = "") -> dict[str, Any]:
    """Judges against each other."""
    with database(request).read() as session:
        return tables.agreement(session, experiments.get(session, experiment_id), prompts).as_json()


@api.get("/experiments/{experiment_id}/responses", dependencies=VIEWER)
def download_responses(request: Request, experiment_id: int, prompts: str = "") -> StreamingResponse:
    """All answers to a prompt set, as JSON Lines."""
    return _download(request, experiment_id, prompts, "responses", exports.responses)


@api.get("/experiments/{experiment_id}/verdicts", dependencies=VIEWER)
def download_verdicts(request: Request, experiment_id: int, prompts: str = "") -> StreamingResponse:
    """All verdicts on a prompt set, as JSON Lines."""
    return _download(request, experiment_id, prompts, "verdicts", exports.verdicts)


@api.get("/experiments/{experiment_id}/scores", dependencies=VIEWER)
def download_scores(request: Request, experiment_id: int, prompts: str = "") -> StreamingResponse:
    """All that judges gave answers one by one, as JSON Lines."""
    return _download(request, experiment_id, prompts, "scores", exports.scores)


@api.get("/experiments/{experiment_id}/alpaca-eval", dependencies=VIEWER)
def download_alpaca_eval(request: Request, experiment_id: int, model: str, prompts: str = "") -> StreamingResponse:
    """One model's answers as AlpacaEval reads them: a JSON array of its outputs."""

    def outputs(session: Session, owner: Experiment, set_name: str) -> Iterator[dict[str, Any]]:
        return exports.alpaca_eval(session, owner, set_name, model)

    return _download(request, experiment_id, prompts, f"{model}-alpaca-eval", outputs, array=True)


def _download(
    request: Request, experiment_id: int, prompts: str, what: str, rows: Rows, *, array: bool = False
) -> StreamingResponse:
    """Rows as a file, read as they are sent. What is not there is said before the answer begins."""
    here = database(request)
    with here.read() as session:
        owner = experiments.get(session, experiment_id)
        chosen = sets.choose_set(session, owner, prompts)
        rows(session, owner, chosen)  # raises what there is to raise

    def content() -> Iterator[bytes]:
        with here.read() as session:
            found = rows(session, owner, chosen)
            yield from exports.as_array(found) if array else exports.as_lines(found)

    name = quote(f"{owner.name}-{what}.{'json' if array else 'jsonl'}", safe="")
    return StreamingResponse(
        content(),
        media_type="application/json" if array else "application/x-ndjson",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
    )


@api.put("/experiments/{name}/responses", dependencies=RUNNER, status_code=201)
async def upload_responses(request: Request, name: str, prompts: str = "", filename: str = "") -> dict[str, Any]:
    """Take in answers that were made elsewhere, as JSON Lines in the raw body: all of them, or none.

    An experiment of a new name is made. `filename` is what messages call the file.
    """
    async with uploaded(request, filename or "responses.jsonl") as path:
        found = await run_in_threadpool(import_responses, database(request), path, name, prompts)
    return found.as_json()


@api.put("/experiments/{name}/verdicts", dependencies=RUNNER, status_code=201)
async def upload_verdicts(request: Request, name: str, prompts: str = "", filename: str = "") -> dict[str, Any]:
    """Take in verdicts of judges or people, as JSON Lines in the raw body: all of them, or none.

    An experiment of a new name is made. `filename` is what messages call the file.
    """
    async with uploaded(request, filename or "verdicts.jsonl") as path:
        found = await run_in_threadpool(import_verdicts, database(request), path, name, prompts)
    return found.as_json()
