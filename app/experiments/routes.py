"""Experiments: the list, one with its runs, launching a preset or a file."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from app.auth import Role, require
from app.demo import data as demo
from app.errors import Invalid
from app.experiments import queries, service, spec
from app.experiments.picture import picture
from app.runs import queries as runs
from app.web import database, page, settings
from app.winrates.choices import Asked
from app.winrates.result import result

pages = APIRouter(dependencies=[require(Role.VIEWER)])
api = APIRouter(tags=["experiments"])


class NewExperiment(BaseModel):
    """A preset's name, or an experiment file's text; and a name of its own, where the file's is taken."""

    preset: str = Field("", max_length=100)
    yaml: str = Field("", max_length=1_000_000)
    name: str = Field("", max_length=100)


@pages.get("/experiments")
def list_page(request: Request) -> Response:
    with database(request).read() as session:
        found = queries.list_experiments(session)
    presets = [{"name": name, "spec": spec.load(name)} for name in spec.presets()]
    return page(request, "experiments/list.html", experiments=found, presets=presets)


@pages.get("/experiments/{experiment_id}")
def experiment_page(
    request: Request, experiment_id: int, judge: str = "", baseline: str = "", prompts: str = ""
) -> Response:
    """The result on top, by the judge and against the baseline that are asked for; below it the runs."""
    with database(request).read() as session:
        experiment = service.get(session, experiment_id)
        found = runs.list_runs(session, runs.Filter(experiment=experiment_id, sort="oldest"), size=200)
        shown = result(session, experiment, Asked(judge, baseline, prompts))
        graph = picture(found.rows, queries.edges(session, experiment_id))
    return page(request, "experiments/show.html", experiment=experiment, found=found, result=shown, graph=graph)


@api.get("/experiments", dependencies=[require(Role.VIEWER)])
def list_experiments(request: Request) -> dict[str, Any]:
    """All experiments, newest first, with their runs counted by state."""
    with database(request).read() as session:
        return {"rows": queries.list_experiments(session)}


@api.get("/experiments/{experiment_id}", dependencies=[require(Role.VIEWER)])
def show_experiment(request: Request, experiment_id: int) -> dict[str, Any]:
    """One experiment: its file as launched, and its runs."""
    with database(request).read() as session:
        found = service.get(session, experiment_id)
        rows = runs.list_runs(session, runs.Filter(experiment=experiment_id, sort="oldest"), size=200).rows
    return {
        "experiment": {"id": found.id, "name": found.name, "question": found.question, "spec": found.spec},
        "runs": rows,
    }


@api.post("/experiments", dependencies=[require(Role.RUNNER)], status_code=201)
def launch_experiment(request: Request, new: NewExperiment) -> dict[str, Any]:
    """Launch a whole graph of runs, or nothing of it."""
    if bool(new.preset) == bool(new.yaml):
        raise Invalid("Give a preset's name, or an experiment file's text.")
    content = spec.load_preset(new.preset) if new.preset else spec.parse_yaml(new.yaml)
    if new.preset == demo.PRESET:
        demo.ensure(database(request), settings(request))
    if new.name:
        content = content.model_copy(update={"name": new.name})
    with database(request).write() as session:
        experiment, made = service.launch(session, settings(request), content)
        rows = [runs.row(run, experiment.name) for run in made]
    return {"experiment": {"id": experiment.id, "name": experiment.name}, "runs": rows}
