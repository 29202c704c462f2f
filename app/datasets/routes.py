"""Data sets: the list, one of them, upload, deletion."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth import Role, require
from app.datasets import queries, service
from app.datasets.flaws import flaws_of, in_words
from app.datasets.synthesis import refilter
from app.datasets.upload import uploaded
from app.web import database, page, settings

pages = APIRouter(dependencies=[require(Role.VIEWER)])
api = APIRouter(tags=["datasets"])


@api.get("/datasets", dependencies=[require(Role.VIEWER)])
def list_datasets(request: Request) -> dict[str, Any]:
    """Every version of every data set, newest first."""
    with database(request).read() as session:
        return {"rows": [queries.as_json(row) for row in queries.all_versions(session)]}


@api.get("/datasets/{name}/{version}", dependencies=[require(Role.VIEWER)])
def show_dataset(request: Request, name: str, version: int) -> dict[str, Any]:
    """One version: what the scan found, and its first rows."""
    with database(request).read() as session:
        found = queries.get(session, name, version)
    return {"dataset": queries.as_json(found), "first_rows": queries.first_rows(settings(request), found)}


@api.put("/datasets/{name}", dependencies=[require(Role.RUNNER)], status_code=201)
async def upload(
    request: Request, name: str, filename: str = "", labelled_by: Annotated[list[str] | None, Query()] = None
) -> dict[str, Any]:
    """Upload a JSON Lines file as the raw body. Every row is checked; bad ones are named by line, and none is taken.

    `filename` is what messages call it. The same name again makes the next version. `labelled_by`: the judges that
    said which answer is better; a table of the same judge then warns.
    """
    service.check_name(name)
    judges = service.check_labellers(labelled_by or [])
    async with uploaded(request, filename or f"{name}.jsonl") as path:
        found = await run_in_threadpool(
            service.take_in, database(request), settings(request), path, name, path.name, labelled_by=judges
        )
    return {"dataset": queries.as_json(found)}


@api.delete("/datasets/{name}/{version}", dependencies=[require(Role.RUNNER)])
def delete_dataset(request: Request, name: str, version: int) -> dict[str, Any]:
    """Delete one version that no run was made from."""
    service.delete(database(request), settings(request), name, version)
    return {"deleted": {"name": name, "version": version}}


@api.post("/runs/{run_id}/refilter", dependencies=[require(Role.RUNNER)], status_code=201, tags=["runs"])
def refilter_run(request: Request, run_id: int, thresholds: dict[str, float | bool]) -> dict[str, Any]:
    """Filter again what an augment run made: the body holds thresholds by name, such as `{"max_prompt_similarity": 0.9}`.

    Makes a new version of the run's data set; nothing is generated or judged again, and no version changes.
    """
    return {"dataset": queries.as_json(refilter(database(request), settings(request), run_id, thresholds))}


@pages.get("/datasets")
def list_page(request: Request) -> Response:
    with database(request).read() as session:
        found = queries.all_versions(session)
    return page(request, "datasets/list.html", datasets=[(each, queries.launch_link(each)) for each in found])


@pages.get("/datasets/{name}")
def latest_page(request: Request, name: str) -> Response:
    return _page(request, name, None)


@pages.get("/datasets/{name}/{version}")
def version_page(request: Request, name: str, version: int) -> Response:
    return _page(request, name, version)


def _page(request: Request, name: str, version: int | None) -> Response:
    with database(request).read() as session:
        found = queries.get(session, name, version)
        versions = queries.versions(session, name)
        users = queries.used_by(session, found)
    rows = queries.first_rows(settings(request), found)
    return page(
        request,
        "datasets/show.html",
        dataset=found,
        link=queries.launch_link(found),
        flaws=in_words(flaws_of(found.facts)),
        versions=versions,
        users=users,
        rows=[(row, queries.as_pair(row)) for row in rows],
    )
