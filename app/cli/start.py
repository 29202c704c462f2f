"""`preflab up`, `preflab worker`, `preflab demo`."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Annotated

import typer

from app import tokens
from app.auth import Role
from app.cli.common import bench
from app.cli.links import shown_address
from app.demo import data as demo_data
from app.errors import Unavailable
from app.settings import load_settings
from app.system.doctor import TRAIN


def add_to(cli: typer.Typer) -> None:
    cli.command("up")(up)
    cli.command("worker")(worker)
    cli.command("demo")(demo)


def up() -> None:
    """The web pages and a worker, until Ctrl-C. Prints a link that signs a browser in."""
    from app.supervisor import supervise

    settings = load_settings()
    with bench(migrate=True) as here:
        demo_data.ensure_in_new_home(here.database, here.settings)
        with here.database.write() as session:
            secret = tokens.create(session, tokens.LOGIN, Role.ADMIN, "me")[1]

    def greet(address: str) -> None:
        print(f"\nPreflab runs. Open {shown_address(settings, address)}/login?token={secret}")
        print("The link signs one browser in, within a day; `preflab token login` makes another. Ctrl-C ends all.\n")
        sys.stdout.flush()

    raise typer.Exit(supervise(settings, ready=greet))


def worker() -> None:
    """One more worker: it takes runs off the queue and trains them on this machine's devices."""
    if importlib.util.find_spec("torch") is None:
        raise Unavailable("torch is not installed: this machine cannot train.", TRAIN)
    os.execv(sys.executable, [sys.executable, "-m", "worker"])


def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="End when the run has ended, with its exit code.")] = False,
) -> None:
    """Everything at once: serves, trains a small model in about two minutes, shows what it learned.

    It has a home of its own, ./.preflab-demo, unless PREFLAB_HOME is set.
    """
    from app.demo.show import demonstrate

    raise typer.Exit(demonstrate(exit_when_done=exit_))
