"""The pages of runs: the list, the launch form, one run, its files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from sqlmodel import Session
from starlette.background import BackgroundTask
from starlette.responses import RedirectResponse, Response, StreamingResponse

from app.auth import Role, require
from app.charts.figures import themes
from app.errors import Invalid, NotFound
from app.experiments import service as experiments
from app.experiments import spec as specs
from app.models import Run
from app.runs import folder, forms, queries, service, states
from app.runs.api import api
from app.runs.draft import Draft, as_yaml, changes
from app.runs.offers import offers
from app.runs.result_links import result_links
from app.web import database, page, settings
from training.config import STAGES, StageConfig, parse_config

__all__ = ["api", "pages"]

pages = APIRouter(dependencies=[require(Role.VIEWER)])

BLOCK = 1 << 18  # bytes of a file that are sent at once


@pages.get("/")
def overview() -> Response:
    return RedirectResponse("/runs", 303)


@pages.get("/runs")
def list_page(
    request: Request,
    q: str = "",
    stage: str = "",
    state: str = "",
    experiment: str = "",
    sort: str = "newest",
) -> Response:
    wanted = queries.Filter(
        q, stage, state, _number(experiment), sort, _number(request.query_params.get("page", "")) or 1
    )
    with database(request).read() as session:
        found = queries.list_runs(session, wanted)
        owners = queries.experiments(session)
    return page(
        request,
        "runs/list.html",
        found=found,
        filter=found.filter,
        experiments=owners,
        stages=list(STAGES),
        states=states.STATES,
        sorts={key: label for key, (label, _) in queries.SORTS.items()},
        filtered=bool(q or stage or state or experiment),
    )


def _number(text: str) -> int | None:
    """An id or a page of an address. Others' digits are none, and the columns have 32 bits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


@pages.get("/runs/new")
def launch_page(
    request: Request, stage: str = "sft", preset: str = "", dataset: str = "", model: str = "", prompts: str = "",
    experiment: str = "",
) -> Response:  # fmt: skip
    """The form, empty, or with what a preset or another run (`from`) has."""
    named = (("dataset", dataset), ("model", model), ("prompts", prompts))
    clone = request.query_params.get("from", "")
    with database(request).read() as session:
        draft = _start(session, stage, preset, clone)
        draft = replace(draft, experiment=experiment or draft.experiment)
        given = {**draft.content, **{key: text for key, text in named if text}}
        kind = _stage(draft.stage)
        owner = experiments.by_name(session, draft.experiment)
        name = experiments.free_name(session, owner, draft.stage) if owner else f"{draft.stage}-1"
        offered = offers(session, settings(request), kind, draft.stage)
        owners = queries.experiments(session)
    return page(
        request,
        "runs/new.html",
        stage=draft.stage,
        stages={key: each.label for key, each in STAGES.items()},
        groups=forms.form_groups(kind),
        texts=forms.texts(kind, given),
        name=name,
        experiment=draft.experiment,
        experiments=[owner_name for _, owner_name in owners],
        offers=offered,
        presets=[name for name in specs.presets() if _first_run(specs.load_preset(name), draft.stage)],
        source=draft.name,
    )


def _stage(name: str) -> type[StageConfig]:
    if name not in STAGES:
        raise NotFound(f"This version has no stage “{name[:40]}”.", f"It has: {', '.join(STAGES)}.")
    return STAGES[name]


def _start(session: Session, stage: str, preset: str, clone: str) -> Draft:
    """What the form begins with. `name` says where it came from."""
    if clone:
        number = _number(clone)
        if number is None:
            raise NotFound(f"There is no run “{clone[:40]}”.")
        run = service.get(session, number)
        owner = experiments.get(session, run.experiment_id)
        return Draft(run.stage, _without_stage(run.config), f"run {run.id}, {run.name}", owner.name)
    if preset:
        content = _first_run(specs.load_preset(preset), stage)
        if content is None:
            raise Invalid(f"The preset “{preset}” has no {stage} run.")
        return Draft(stage, _without_stage(content), f"the preset {preset}")
    return Draft(stage, {})


def _first_run(spec: specs.ExperimentSpec, stage: str) -> dict[str, Any] | None:
    return next((run for run in spec.runs.values() if run.get("stage") == stage), None)


def _without_stage(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "stage"}


@pages.get("/runs/{run_id}")
def run_page(request: Request, run_id: int) -> Response:
    with database(request).read() as session:
        run = service.get(session, run_id)
        owner = experiments.get(session, run.experiment_id)
        needs, needed_by = queries.relatives(session, run_id)
        position = queries.queue_position(session, run)
        bad = queries.events_of(session, run_id, ["bad_line"], limit=20) if run.bad_lines else []
        results = result_links(session, run, owner)
    root = settings(request).run_folder(run_id)
    return page(
        request,
        "runs/show.html",
        run=run,
        row=queries.row(run, owner.name),
        owner=owner,
        needs=needs,
        needed_by=needed_by,
        position=position,
        bad_lines=bad,
        results=results,
        config=shown_config(run),
        yaml=_yaml(run, owner.name),
        environment=flat(
            (folder.read_json(root, "env.json") or {}) | {"commits": folder.read_json(root, "commits.json") or {}}
        ),
        files=folder.entries(root),
        usage=folder.usage(root),
        themes=themes(),
    )


def shown_config(run: Run) -> list[dict[str, Any]]:
    """The config as stored, in the form's groups, each value marked where it is not the default."""
    kind = STAGES.get(run.stage)
    if kind is None:
        rows = [
            {"name": key, "title": key, "help": "", "unit": "", "value": value, "own": True}
            for key, value in run.config.items()
        ]
        return [{"title": "Config", "rows": rows}]
    texts = {key: forms.as_text(value) for key, value in run.config.items()}
    groups = []
    for group in forms.form_groups(kind):
        rows = [
            {
                "name": field.name,
                "title": field.title,
                "help": field.help,
                "unit": field.unit,
                "value": texts.get(field.name, field.default),
                "own": texts.get(field.name, field.default) != field.default,
            }
            for field in group.fields
        ]
        groups.append({"title": group.title, "rows": rows})
    return groups


def _yaml(run: Run, owner: str) -> str:
    config = parse_config(run.config)
    return as_yaml(Draft(run.stage, changes(config), run.name, owner), config)


def flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A JSON object's leaves as (dotted name, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            rows += [row for index, each in enumerate(value) for row in flat({str(index): each}, f"{prefix}{key}.")]
        elif value not in (None, "", []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows


@pages.get("/runs/{run_id}/files/{path:path}")
def run_file(request: Request, run_id: int, path: str) -> Response:
    """One file of the run's directory, as a download."""
    with database(request).read() as session:
        service.get(session, run_id)
    file = folder.open_file(settings(request).run_folder(run_id), path)
    name = quote(path.rsplit("/", 1)[-1])
    return StreamingResponse(
        iter(lambda: file.read(BLOCK), b""),
        media_type="application/octet-stream",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
        background=BackgroundTask(file.close),
    )
