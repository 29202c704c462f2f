"""`preflab launch`, `preflab presets`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
import yaml
from sqlmodel import col, select

from app.cli.common import AsJson, Bench, bench, brief, emit, note, parse_sets, table
from app.demo import data as demo
from app.errors import Invalid
from app.experiments import service, spec
from app.models import Experiment, Run, Worker
from app.runs import states
from training.config import InvalidConfig, StageConfig, parse_config

presets = typer.Typer(help="Ready experiments.", no_args_is_help=True, rich_markup_mode=None)


def add_to(cli: typer.Typer) -> None:
    cli.command("launch")(launch)
    cli.add_typer(presets, name="presets")


def launch(
    what: Annotated[str, typer.Argument(metavar="PRESET-or-FILE", help="A preset, or an experiment file.")] = "",
    changes: Annotated[
        list[str], typer.Option("--set", metavar="[RUN.]KEY=VALUE", help="Change a setting; may be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    stage: Annotated[str, typer.Option(help="Launch one run of this stage instead.")] = "",
    name: Annotated[str, typer.Option(help="The experiment's name; with --stage, the run's.")] = "",
    experiment: Annotated[str, typer.Option(help="With --stage: the run's experiment.")] = service.PLAYGROUND,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it ended; exit code 1 where a run failed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Launch an experiment, or one run with --stage. Something must work off the queue: `preflab up`, `preflab worker`."""
    if bool(what) == bool(stage):
        raise Invalid("Give a preset or a file, or --stage.", f"Presets: {', '.join(spec.presets())}.")
    with bench(migrate=True) as here:
        if stage:
            owner, runs = _launch_one(here, stage, changes, experiment, name)
        else:
            if what == demo.PRESET:
                demo.ensure(here.database, here.settings)
            with here.database.write() as session:
                owner, runs = service.launch(session, here.settings, changed(spec.load(what), changes, name))
        note_missing_workers(here)
        ended_well = True
        if wait:
            from app.cli.watch import watch

            ended_well = watch(here.database, [key for run in runs if (key := run.id) is not None])
            with here.database.read() as session:
                runs = [run for old in runs if (run := session.get(Run, old.id))]
    report(owner, runs, as_json=as_json)
    if not ended_well:
        raise typer.Exit(1)


def changed(content: spec.ExperimentSpec, changes: list[str], name: str) -> spec.ExperimentSpec:
    """The experiment with `--set run.key=value` and `--name` applied. Raises Invalid."""
    whole = content.model_dump(exclude_unset=True)
    for place, value in parse_sets(changes, example="run.learning_rate=1e-4").items():
        run, dot, key = place.rpartition(".")
        if not dot or run not in whole["runs"]:
            known = ", ".join(whole["runs"])
            raise Invalid(f"“{place}” names no run of this experiment.", f"Write --set RUN.KEY=VALUE; runs: {known}.")
        whole["runs"][run] = {**whole["runs"][run], key: value}
    if name:
        whole["name"] = name
    return spec.parse_spec(whole)


def _launch_one(
    here: Bench, stage: str, changes: list[str], experiment: str, name: str
) -> tuple[Experiment, list[Run]]:
    config = stage_config({"stage": stage, **parse_sets(changes, example="learning_rate=1e-4")})
    with here.database.write() as session:
        run = service.launch_one(session, here.settings, config, experiment=experiment, name=name)
        return service.get(session, run.experiment_id), [run]


def stage_config(content: dict[str, Any]) -> StageConfig:
    """Raises Invalid."""
    try:
        return parse_config(content)
    except InvalidConfig as error:
        sentences = " ".join(f"{field}: {sentence}" for field, sentence in error.fields.items())
        raise Invalid(sentences, fields=error.fields) from None


def note_missing_workers(here: Bench) -> None:
    with here.database.read() as session:
        seen = session.exec(select(Worker.name).where(col(Worker.seen_at) > time.time() - 60)).first()
    if seen is None:
        note("No worker has been seen lately: the runs wait until `preflab up` or `preflab worker` runs.")


def report(owner: Experiment, runs: list[Run], *, as_json: bool) -> None:
    if as_json:
        emit({"experiment": {"id": owner.id, "name": owner.name}, "runs": [brief(run) for run in runs]})
        return
    rows = [[str(run.id), f"{owner.name}/{run.name}", run.stage, run.state] for run in runs]
    table(["id", "run", "stage", "state"], rows, "")
    for run in runs:
        if run.state == states.FAILED and run.error:
            note(f"{run.name}: {run.error['message']} {run.error.get('hint', '')}")


@presets.command("list")
def list_presets(as_json: AsJson = False) -> None:
    """The presets of this version."""
    found = [(name, spec.load(name)) for name in spec.presets()]
    if as_json:
        rows = [{"name": name, "question": content.question, "runs": list(content.runs)} for name, content in found]
        emit({"rows": rows})
        return
    table(
        ["preset", "runs", "question"],
        [[name, ", ".join(content.runs), content.question] for name, content in found],
        "There are no presets.",
    )


@presets.command("show")
def show_preset(name: Annotated[str, typer.Argument(help="A preset.")], as_json: AsJson = False) -> None:
    """A preset's experiment file, as a start for your own."""
    content = spec.load(name)
    if as_json:
        emit({"preset": name, "experiment": content.model_dump(exclude_unset=True)})
    elif name in spec.presets():
        print((spec.PRESETS / f"{name}.yaml").read_text(), end="")
    else:
        print(yaml.safe_dump(content.model_dump(exclude_unset=True), sort_keys=False), end="")
