"""What the commands share: the database, output as table or JSON, `--set`, and how runs are named."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
import yaml
from sqlalchemy.engine import make_url
from sqlmodel import Session

from app import migrations
from app.db import Database
from app.errors import Invalid, NotFound, Unavailable
from app.experiments import service as experiments
from app.models import Experiment, Run
from app.runs.inputs import find_run
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as docs/cli.md shows it.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or EXPERIMENT/NAME.", show_default=False)]

ExperimentName = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="An experiment's name, or its id.", show_default=False)
]
PromptSet = Annotated[
    str, typer.Option("--prompts", metavar="SET", help="The prompt set; unset: the held-out one, or the only one.")
]


@dataclass(frozen=True)
class Bench:
    """What a command works with."""

    settings: Settings
    database: Database


@contextlib.contextmanager
def bench(*, migrate: bool = False) -> Iterator[Bench]:
    """Settings and database; bells that were rung are delivered at the end. `migrate`: make or upgrade the database.

    Raises Unavailable where the database is not at this version's schema.
    """
    from app.doorbell import Doorbell

    settings = load_settings()
    doorbell = Doorbell(settings)
    if migrate:
        create_home(settings)
    else:
        refuse_missing_file(settings)
    database = Database(settings.database, ring=doorbell.ring)
    try:
        if migrate:
            migrations.upgrade(database.engine)
        else:
            migrations.check(database.engine)
        yield Bench(settings, database)
    finally:
        doorbell.close()
        database.dispose()


def create_home(settings: Settings) -> None:
    try:
        settings.create_home()
    except OSError as error:
        raise Unavailable(
            f"The home {settings.home} cannot be made: {error.strerror}.", "PREFLAB_HOME names another place."
        ) from None


def refuse_missing_file(settings: Settings) -> None:
    """SQLite would make an empty database without a word."""
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        raise NotFound(f"There is no database {url.database} yet.", "`preflab up` makes it; PREFLAB_HOME says where.")


def emit(content: dict[str, Any]) -> None:
    """Print JSON. What JSON does not know (NaN, infinities) is null."""
    sys.stdout.write(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str, *, figures: int = 0) -> None:
    """Print rows in columns, or a sentence where there are none. `figures`: so many columns, the last, hold numbers."""
    from rich.table import Table

    if not rows:
        print(empty)
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        if number >= len(columns) - figures:
            shown.add_column(column, justify="right", no_wrap=True)
        else:
            shown.add_column(column, no_wrap=not figures and number == 0)
    for row in rows:
        shown.add_row(*row)
    # Into a file or a pipe nothing is cut or broken, however wide.
    console(width=None if sys.stdout.isatty() else 10_000).print(shown)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, width=width)


def note(sentence: str) -> None:
    """Something to know that is neither result nor error."""
    print(sentence, file=sys.stderr)


def parse_sets(texts: Sequence[str], *, example: str) -> dict[str, Any]:
    """`key=value`, the value as a YAML scalar or list. Raises Invalid."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise Invalid(f"“{text[:80]}” is no setting.", f"Write --set {example}.")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError):
            found[key.strip()] = value
    return found


def the_run(session: Session, name: str) -> Run:
    """By id or experiment/name. Raises NotFound."""
    run = find_run(session, name, None)
    if run is None:
        raise NotFound(f"There is no run “{name[:200]}”.", "Give its id, or EXPERIMENT/NAME; see `preflab runs list`.")
    return run


def the_experiment(session: Session, name: str) -> Experiment:
    """By name or id. Raises NotFound."""
    found = experiments.by_name(session, name)
    if found is None and name.isascii() and name.isdecimal() and len(name) < 10:
        found = session.get(Experiment, int(name))
    if found is None:
        raise NotFound(f"There is no experiment “{name[:200]}”.", "Give its name, or its id.")
    return found


def brief(run: Run) -> dict[str, Any]:
    return {"id": run.id, "name": run.name, "stage": run.stage, "state": run.state}


def moment(seconds: float | None) -> str:
    """A time of the clock here, for people."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
