"""`preflab runs ...`"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from sqlmodel import col, select

from app.cli.common import AsJson, RunName, bench, brief, emit, moment, note, parse_sets, table, the_run
from app.cli.launch import report, stage_config
from app.errors import Invalid
from app.experiments import service as experiments
from app.models import Experiment, Run
from app.runs import files, service, states
from app.runs.health.of_run import health_of

runs = typer.Typer(help="List, show, stop, resume, retry, clone and delete runs.", rich_markup_mode=None)


def add_to(cli: typer.Typer) -> None:
    from app.cli import logs

    runs.command("logs")(logs.logs)
    cli.add_typer(runs, name="runs", no_args_is_help=True)


@runs.command("list")
def list_runs(
    state: Annotated[str, typer.Option(help=f"Only runs in this state: {', '.join(states.STATES)}.")] = "",
    experiment: Annotated[str, typer.Option(help="Only runs of this experiment.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first."""
    if state and state not in states.STATES:
        raise Invalid(f"There is no state “{state}”.", f"States: {', '.join(states.STATES)}.")
    statement = select(Run, Experiment.name).join(Experiment).order_by(col(Run.id).desc()).limit(limit)
    if state:
        statement = statement.where(Run.state == state)
    if experiment:
        statement = statement.where(Experiment.name == experiment)
    with bench() as here, here.database.read() as session:
        found = session.exec(statement).all()
    if as_json:
        emit({"rows": [summary(run, owner) for run, owner in found]})
        return
    table(
        ["id", "run", "stage", "state", "steps", "loss", "eval loss", "created"],
        [
            [
                str(run.id),
                f"{owner}/{run.name}",
                run.stage,
                run.state,
                steps(run),
                last(run, "loss"),
                last(run, "eval_loss"),
                moment(run.created_at),
            ]
            for run, owner in found
        ],
        "There are no runs yet: `preflab launch` starts some.",
    )


def summary(run: Run, owner: str) -> dict[str, Any]:
    """A run in a listing."""
    return {
        "id": run.id,
        "name": run.name,
        "experiment": owner,
        "stage": run.stage,
        "state": run.state,
        "step": run.step,
        "total_steps": run.total_steps,
        "attempt": run.attempt,
        "priority": run.priority,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "metrics": {key: values.get("last") for key, values in sorted(run.summary.items())},
        "error": run.error,
    }


def steps(run: Run) -> str:
    return "" if run.total_steps is None else f"{run.step:,}/{run.total_steps:,}"


def last(run: Run, key: str) -> str:
    value = run.summary.get(key, {}).get("last")
    return "" if value is None else f"{float(value):.4f}"


@runs.command("show")
def show(run: RunName, as_json: AsJson = False) -> None:
    """One run: its config, its state, what its curves say, the last and best of each metric, and why it failed."""
    with bench() as here, here.database.read() as session:
        found = the_run(session, run)
        owner = experiments.get(session, found.experiment_id).name
        findings = health_of(session, found)
    content = {**summary(found, owner), "config": found.config, "phase": found.phase, "notes": found.notes}
    content["metrics"] = {key: best(key, values) for key, values in sorted(found.summary.items())}
    content["health"] = [vars(each) for each in findings]
    content["bad_lines"] = found.bad_lines
    content["directory"] = str(here.settings.run_folder(found.id or 0))
    if as_json:
        emit(content)
        return
    print(f"{owner}/{found.name} (run {found.id}, {found.stage}): {found.state}")
    if found.error:
        print(f"  {found.error['message']} {found.error.get('hint', '')}")
    print(
        f"  step {steps(found) or found.step}, attempt {found.attempt}, started {moment(found.started_at) or 'not yet'}"
    )
    print(f"  {content['directory']}\n")
    for each in findings:
        print(f"{each.level}: {each.title}. {each.sentence}" + (f"\n  {each.advice}" if each.advice else ""))
    if findings:
        print()
    metrics = content["metrics"].items()
    rows = [[key, *(f"{value[part]}" for part in ("last", "best", "step"))] for key, value in metrics]
    table(["metric", "last", "best", "at step"], rows, "It has measured nothing yet.")
    print()
    table(["setting", "value"], [[key, f"{value}"] for key, value in found.config.items()], "")


def best(key: str, values: dict[str, Any]) -> dict[str, Any]:
    """A metric's last value, and its best: the lowest of losses, the highest of others."""
    extreme = values.get("min" if "loss" in key else "max")
    return {"last": values.get("last"), "step": values.get("step"), "best": extreme}


@runs.command("stop")
def stop(run: RunName, as_json: AsJson = False) -> None:
    """Stop a run. A running one saves a checkpoint first."""
    _change(run, service.stop, as_json)


@runs.command("resume")
def resume(run: RunName, as_json: AsJson = False) -> None:
    """Let a stopped or failed run go on from its last checkpoint."""
    _change(run, service.resume, as_json)


@runs.command("retry")
def retry(run: RunName, as_json: AsJson = False) -> None:
    """Start a stopped or failed run again from nothing."""
    _change(run, service.retry, as_json)


def _change(name: str, verb: Any, as_json: bool) -> None:
    with bench() as here, here.database.write() as session:
        found = verb(session, the_run(session, name).id)
    if as_json:
        emit({"rows": [brief(found)]})
        return
    wish = " It saves a checkpoint, then stops." if found.desired_state == states.STOPPED else ""
    print(f"{found.name}: {found.state}.{wish}")


@runs.command("clone")
def clone(
    run: RunName,
    changes: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")] = [],  # noqa: B006
    name: Annotated[str, typer.Option(help="The new run's name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Launch a run again, in the same experiment, with other settings."""
    with bench() as here, here.database.write() as session:
        old = the_run(session, run)
        owner = experiments.get(session, old.experiment_id)
        config = stage_config({**old.config, **parse_sets(changes, example="learning_rate=1e-4")})
        new = experiments.launch_one(session, here.settings, config, experiment=owner.name, name=name)
    report(owner, [new], as_json=as_json)


@runs.command("delete")
def delete(
    run: RunName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    with_dependants: Annotated[
        bool, typer.Option("--with-dependants", help="Also the runs that need this one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a run: its row, its curves, its checkpoints and its model. Says what goes, and asks."""
    with bench() as here:
        with here.database.read() as session:
            doomed = service.doomed(session, the_run(session, run).id or 0)
        keys = [key for found in doomed if (key := found.id) is not None]
        if not yes:
            note(f"This deletes {', '.join(found.name for found in doomed)}: curves, logs, checkpoints and models, ")
            note(f"{files.size(here.settings, keys) / 1e6:,.1f} MB of files. It cannot be undone.")
            typer.confirm("Delete?", abort=True, err=True)
        with here.database.write() as session:
            gone = service.delete(session, keys[0], with_dependants=with_dependants or not yes)
        files.remove(here.settings, gone)
    if as_json:
        emit({"deleted": gone})
    else:
        print(f"Deleted {len(gone)} run{'s' if len(gone) > 1 else ''}.")
