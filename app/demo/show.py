"""`preflab demo`: serve, launch the preset, watch it learn, and say what it learned."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import orjson
from sqlmodel import col, select

from app import tokens
from app.auth import Role
from app.cli.common import bench, console, create_home
from app.cli.watch import load, watch
from app.db import Database
from app.demo import data
from app.doorbell import Doorbell
from app.experiments import service, spec
from app.models import Event, Experiment, Run
from app.settings import Settings, load_settings
from app.supervisor import supervise

HOME = ".preflab-demo"


def demonstrate(*, exit_when_done: bool) -> int:
    """Run the demo in this process, the show in a thread beside the supervisor. Returns the exit code."""
    _settle()
    settings = load_settings()
    create_home(settings)
    with bench(migrate=True) as here, here.database.write() as session:
        secret = tokens.create(session, tokens.LOGIN, Role.ADMIN, "me")[1]
    finished = threading.Event()

    def show(address: str) -> None:
        try:
            if _show(settings, f"{address}/login?token={secret}"):
                finished.set()
        finally:
            if exit_when_done:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                console().print(f"\nIt goes on serving at {address}. Ctrl-C ends it.")

    def begin(address: str) -> None:
        threading.Thread(target=show, args=(address,), name="show", daemon=True).start()

    code = supervise(settings, ready=begin)
    return code or (0 if finished.is_set() or not exit_when_done else 1)


def _settle() -> None:
    """A home of the demo's own, and a port that is free, unless somebody chose them."""
    if "PREFLAB_HOME" not in os.environ:
        os.environ.update(PREFLAB_HOME=str(Path.cwd() / HOME), PREFLAB_DATABASE_URL="", PREFLAB_BROKER_URL="")
    os.environ.setdefault("PREFLAB_LOG_LEVEL", "warning")  # the log's lines would tear the progress bar
    if "PREFLAB_PORT" not in os.environ:
        usual = load_settings()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((usual.host, usual.port))
            except OSError:
                os.environ["PREFLAB_PORT"] = "0"


def _show(settings: Settings, link: str) -> bool:
    """Launch, watch, report. True if the run finished."""
    out = console()
    doorbell = Doorbell(settings)
    database = Database(settings.database, ring=doorbell.ring)
    try:
        data.ensure(database, settings)
        experiment, runs = _launch(database, settings)
        keys = [run.id for run in runs if run.id is not None]
        out.print(
            f"\nA small model learns {data.COUNT:,} short tasks. Watch it in the browser:\n  {link}\n", soft_wrap=True
        )
        ended_well = watch(database, keys)
        for run in load(database, keys):
            _report(database, run)
        out.print(f"\nThe experiment is “{experiment.name}”. The link above signs one browser in, once.")
        return ended_well
    finally:
        doorbell.close()
        database.dispose()


def _launch(database: Database, settings: Settings) -> tuple[Experiment, list[Run]]:
    content = spec.load(data.PRESET)
    with database.write() as session:
        name = service.free_experiment_name(session, content.name)
        return service.launch(session, settings, content.model_copy(update={"name": name}))


def _report(database: Database, run: Run) -> None:
    """How the run ended: the loss before and after, and what the model answers now."""
    out = console()
    if run.error:
        out.print(f"{run.name}: {run.state}. {run.error['message']} {run.error.get('hint', '')}")
        return
    assert run.id is not None
    losses = _eval_losses(database, run.id)
    if losses:
        out.print(f"{run.name}: {run.state}. Eval loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end.\n")
    right = {task.prompt: task.answer for task in data.tasks()}
    for prompt, response in _last_samples(database, run.id):
        mark = "right" if right.get(prompt) == response.strip() else "wrong"
        out.print(f"  {prompt}\n    {response.strip()}   ({mark})")


def _eval_losses(database: Database, run_id: int) -> list[float]:
    with database.read() as session:
        statement = select(Event.body).where(Event.run_id == run_id, Event.kind == "metrics")
        values = [orjson.loads(body) for body in session.exec(statement.order_by(col(Event.number)))]
    return [float(value["eval_loss"]) for value in values if "eval_loss" in value]


def _last_samples(database: Database, run_id: int) -> list[tuple[str, str]]:
    """The prompts and answers of the last step that was sampled; none of these prompts was trained on."""
    statement = select(Event).where(Event.run_id == run_id, Event.kind == "sample").order_by(col(Event.number))
    with database.read() as session:
        events = session.exec(statement).all()
    last = [orjson.loads(event.body) for event in events if event.step == events[-1].step]
    return [(body["prompt"], body["response"]) for body in last]
