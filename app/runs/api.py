"""Runs as JSON: the same verbs as the pages and the CLI."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, Field
from sqlmodel import Session, select

from app.auth import Role, require
from app.charts.catalogue import charts_for
from app.charts.figures import figure
from app.errors import Invalid, NotFound
from app.experiments import service as experiments
from app.models import Experiment, Run
from app.runs import draft as drafts
from app.runs import files, forms, queries, samples, series, service
from app.runs.folder import usage
from app.runs.health.of_run import health_of
from app.web import database, settings
from training.config import STAGES

api = APIRouter(tags=["runs"])

VIEWER, RUNNER = [require(Role.VIEWER)], [require(Role.RUNNER)]
EVENT_KINDS = frozenset({"metrics", "log", "progress", "sample", "artifact", "status", "state", "bad_line"})


class NewRun(BaseModel):
    """What to launch. `config`: the stage's fields, typed or as texts; see docs/configuration.md."""

    stage: str = Field(max_length=40)
    config: dict[str, Any]
    name: str = Field("", max_length=100)
    experiment: str = Field(experiments.PLAYGROUND, max_length=100)

    def draft(self) -> drafts.Draft:
        return drafts.Draft(
            self.stage, self.config, self.name.strip(), self.experiment.strip() or experiments.PLAYGROUND
        )

    def key(self, sent: str | None) -> str | None:
        """What makes this request one with its repetitions: the client's Idempotency-Key, and all that is asked."""
        return hashlib.sha256(f"{sent}\n{self.model_dump_json()}".encode()).hexdigest() if sent else None


class Text(BaseModel):
    """A text."""

    text: str = Field(max_length=1_000_000)


@api.get("/runs", dependencies=VIEWER)
def list_runs(
    request: Request,
    q: str = "",
    stage: str = "",
    state: str = "",
    experiment: int | None = None,
    sort: str = "newest",
    page: int = 1,
) -> dict[str, Any]:
    """A page of runs, with the filters of the runs page."""
    with database(request).read() as session:
        found = queries.list_runs(session, queries.Filter(q, stage, state, experiment, sort, page))
    return {"rows": found.rows, "total": found.total, "page": found.filter.page, "pages": found.pages}


@api.post("/runs/check", dependencies=VIEWER)
def check_run(request: Request, new: NewRun) -> dict[str, Any]:
    """Judge a run without launching it: errors and warnings by field, what it would do, and the same as a file."""
    asked = new.draft()
    with database(request).read() as session:
        judged = drafts.judge(session, settings(request), asked)
    answer: dict[str, Any] = {"errors": judged.errors, "warnings": judged.warnings, "plan": judged.plan}
    if judged.config is not None:
        answer |= {
            "yaml": drafts.as_yaml(asked, judged.config),
            "command": drafts.as_command(asked, judged.config),
        }
    return answer


@api.post("/runs/read", dependencies=VIEWER)
def read_run(file: Text) -> dict[str, Any]:
    """One run of an experiment file, as the form shows it."""
    found = drafts.from_yaml(file.text)
    kind = STAGES.get(found.stage)
    if kind is None:
        raise Invalid(f"This version has no stage “{found.stage[:40]}”.", f"It has: {', '.join(STAGES)}.")
    unknown = ", ".join(sorted(map(str, set(found.content) - set(kind.model_fields))))
    if unknown:
        raise Invalid(f"A {found.stage} run has no setting {unknown}.", "Correct the name, or leave it out.")
    return {
        "stage": found.stage,
        "name": found.name,
        "experiment": found.experiment,
        "config": forms.texts(kind, found.content),
    }


@api.post("/runs", dependencies=RUNNER, status_code=201)
def launch_run(
    request: Request, new: NewRun, idempotency_key: Annotated[str | None, Header(max_length=100)] = None
) -> dict[str, Any]:
    """Launch one run. The same Idempotency-Key with the same request again gives the same run again."""
    asked, key = new.draft(), new.key(idempotency_key)
    with database(request).read() as session:  # files may be looked into here, for seconds: no lock is held meanwhile
        judged = drafts.judge(session, settings(request), asked)
    with database(request).write() as session:
        known = session.exec(select(Run).where(Run.idempotency_key == key)).one_or_none() if key else None
        if known is not None:
            return {"run": shown(session, known)}
        if judged.errors or judged.config is None:
            count = len(judged.errors)
            message = "One setting is wrong." if count == 1 else f"{count} settings are wrong."
            raise Invalid(message, "Each is named at its field.", fields=judged.errors)
        run = experiments.launch_one(
            session,
            settings(request),
            judged.config,
            experiment=asked.experiment,
            name=asked.name,
            idempotency_key=key,
        )
        return {"run": shown(session, run)}


@api.get("/runs/{run_id}", dependencies=VIEWER)
def show_run(request: Request, run_id: int) -> dict[str, Any]:
    """A run with its config and the summary of its metrics."""
    with database(request).read() as session:
        run = service.get(session, run_id)
        return {"run": {**shown(session, run), "config": run.config, "metrics": run.summary}}


@api.get("/runs/{run_id}/doomed", dependencies=VIEWER)
def show_doomed(request: Request, run_id: int) -> dict[str, Any]:
    """What deleting this run would delete."""
    with database(request).read() as session:
        runs = [queries.row(run, "") for run in service.doomed(session, run_id)]
    folders = [usage(settings(request).run_folder(run["id"])) for run in runs]
    return {
        "runs": [{key: run[key] for key in ("id", "name", "stage", "state")} for run in runs],
        "bytes": sum(folder.bytes for folder in folders),
        "checkpoints": sum(folder.checkpoints for folder in folders),
    }


@api.post("/runs/{run_id}/stop", dependencies=RUNNER)
def stop_run(request: Request, run_id: int) -> dict[str, Any]:
    """Stop: a queued run now, a running one once it has saved."""
    return _change(request, run_id, service.stop)


@api.post("/runs/{run_id}/resume", dependencies=RUNNER)
def resume_run(request: Request, run_id: int) -> dict[str, Any]:
    """Go on from the last checkpoint."""
    return _change(request, run_id, service.resume)


@api.post("/runs/{run_id}/retry", dependencies=RUNNER)
def retry_run(request: Request, run_id: int) -> dict[str, Any]:
    """Start again from nothing."""
    return _change(request, run_id, service.retry)


def _change(request: Request, run_id: int, verb: Callable[[Session, int], Run]) -> dict[str, Any]:
    with database(request).write() as session:
        return {"run": shown(session, verb(session, run_id))}


@api.delete("/runs/{run_id}", dependencies=RUNNER)
def delete_run(request: Request, run_id: int, with_dependants: bool = False) -> dict[str, Any]:
    """Delete a run and its directory; with `with_dependants`, also all runs that need it."""
    with database(request).write() as session:
        gone = service.delete(session, run_id, with_dependants=with_dependants)
    files.remove(settings(request), gone)
    return {"deleted": gone}


@api.get("/runs/{run_id}/series", dependencies=VIEWER)
def run_series(request: Request, run_id: int, keys: str = "") -> dict[str, Any]:
    """A run's curves, thinned to about 2,000 points each, their charts, and the cursor from which events go on."""
    wanted = [key for key in keys.split(",") if key]
    with database(request).read() as session:
        run = service.get(session, run_id)
        stage, loss, unit = run.stage, str(run.config.get("loss")), queries.work_of(run).unit
        metrics, cursor = series.read(session, run_id)
    answer = series.as_json(metrics, cursor, wanted)
    colour = f"run-{queries.colour(run_id)}"
    charts = charts_for(list(answer["series"]), stage, loss)
    x = "step" if unit == queries.STEPS else f"{unit} so far"
    answer["charts"] = [figure(chart, answer["series"], colour, x) for chart in charts]
    return answer


@api.get("/runs/{run_id}/health", dependencies=VIEWER)
def run_health(request: Request, run_id: int) -> dict[str, Any]:
    """What the curves say (docs/health.md): findings, the worst first."""
    with database(request).read() as session:
        found = health_of(session, service.get(session, run_id))
    return {"rows": [vars(each) for each in found]}


@api.get("/runs/{run_id}/events", dependencies=VIEWER)
def run_events(
    request: Request, run_id: int, kinds: str = "", after: int = 0, until: int | None = None, limit: int = 2000
) -> dict[str, Any]:
    """The latest events of some kinds (`log,state`), oldest first."""
    wanted = [kind for kind in kinds.split(",") if kind] or sorted(EVENT_KINDS)
    if not EVENT_KINDS.issuperset(wanted):
        raise Invalid(f"kinds takes some of {', '.join(sorted(EVENT_KINDS))}.")
    with database(request).read() as session:
        service.get(session, run_id)
        rows = queries.events_of(session, run_id, wanted, after, until, max(1, min(limit, 10_000)))
    return {"rows": rows}


@api.get("/runs/{run_id}/samples", dependencies=VIEWER)
def run_samples(request: Request, run_id: int, step: int | None = None) -> dict[str, Any]:
    """The steps at which the model was sampled, and its answers at one of them (the last, unless asked)."""
    with database(request).read() as session:
        service.get(session, run_id)
        found = samples.marks(session, run_id)
        steps = sorted({mark.step for mark in found})
        chosen = step if step is not None else steps[-1] if steps else None
        rows = samples.at_step(session, run_id, found, chosen) if chosen is not None else []
    return {"steps": steps, "step": chosen, "rows": rows}


def shown(session: Session, run: Run) -> dict[str, Any]:
    owner = session.get(Experiment, run.experiment_id)
    if owner is None:
        raise NotFound(f"The experiment of run {run.id} is gone.")
    return queries.row(run, owner.name)
