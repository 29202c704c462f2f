"""`preflab import responses|verdicts`, `preflab export responses|verdicts|scores|alpaca-eval`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlmodel import Session

from app.cli.common import AsJson, ExperimentName, PromptSet, bench, console, emit, note, the_experiment
from app.errors import Invalid
from app.models import Experiment
from app.winrates import exports, sets
from app.winrates.imports import Imported, import_responses, import_verdicts

File = Annotated[Path, typer.Argument(help="A JSON Lines file.", show_default=False)]
Owner = Annotated[str, typer.Option(metavar="NAME", help="The experiment; made where there is none of this name.")]
Out = Annotated[Path | None, typer.Option(help="A file. Unset: standard output.")]
Rows = Callable[[Session, Experiment, str], Iterator[dict[str, Any]]]


def add_to(importing: typer.Typer, exporting: typer.Typer) -> None:
    importing.command("responses")(take_responses)
    importing.command("verdicts")(take_verdicts)
    exporting.command("responses")(give_responses)
    exporting.command("verdicts")(give_verdicts)
    exporting.command("scores")(give_scores)
    exporting.command("alpaca-eval")(give_alpaca_eval)


def take_responses(file: File, experiment: Owner, prompts: PromptSet = "", as_json: AsJson = False) -> None:
    """Check models' answers row by row and take them in, or nothing of them."""
    with bench(migrate=True) as here:
        found = import_responses(here.database, file, experiment, prompts)
    report(found, as_json, f"{found.rows:,} answers of {counted(found.models, 'model')}")


def take_verdicts(file: File, experiment: Owner, prompts: PromptSet = "", as_json: AsJson = False) -> None:
    """Check what judges or people said of two answers row by row and take it in, or nothing of it."""
    with bench(migrate=True) as here:
        found = import_verdicts(here.database, file, experiment, prompts)
    who = f"{counted(found.judges, 'judge')} on {counted(found.models, 'model')}"
    report(found, as_json, f"{found.rows:,} verdicts of {who}")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def report(found: Imported, as_json: bool, what: str) -> None:
    """What came in; on stderr, what is worth knowing of it."""
    if as_json:
        emit(found.as_json())
    else:
        where = f"the prompt set “{found.set_name}” of {found.experiment.name}"
        print(f"{what}, {counted(found.prompts, 'prompt')}: in {where}.")
    for sentence in found.notes:
        note(sentence)


def give_responses(
    experiment: ExperimentName, prompts: PromptSet = "", out: Out = None, as_json: AsJson = False
) -> None:
    """All answers to a prompt set, as JSON Lines that `preflab import responses` takes."""
    give(experiment, prompts, out, as_json, exports.responses)


def give_verdicts(
    experiment: ExperimentName, prompts: PromptSet = "", out: Out = None, as_json: AsJson = False
) -> None:
    """All verdicts on a prompt set, as JSON Lines that `preflab import verdicts` takes."""
    give(experiment, prompts, out, as_json, exports.verdicts)


def give_scores(experiment: ExperimentName, prompts: PromptSet = "", out: Out = None, as_json: AsJson = False) -> None:
    """All that judges gave answers one by one, as JSON Lines."""
    give(experiment, prompts, out, as_json, exports.scores)


def give(name: str, prompts: str, out: Path | None, as_json: bool, rows: Rows) -> None:
    if as_json and out is not None:
        raise Invalid("--out writes JSON Lines, and --json prints one object: give one of them.")
    with bench() as here, here.database.read() as session:
        owner = the_experiment(session, name)
        chosen = sets.choose_set(session, owner, prompts)
        found = rows(session, owner, chosen)
        if as_json:
            emit({"experiment": owner.name, "prompts": chosen, "rows": list(found)})
        else:
            write(exports.as_lines(found), out)


def give_alpaca_eval(
    experiment: ExperimentName,
    model: Annotated[str, typer.Argument(help="Whose answers.", show_default=False)],
    prompts: PromptSet = "",
    out: Out = None,
) -> None:
    """One model's answers as AlpacaEval reads them (`--model_outputs`): a JSON array."""
    with bench() as here, here.database.read() as session:
        owner = the_experiment(session, experiment)
        found = exports.alpaca_eval(session, owner, sets.choose_set(session, owner, prompts), model)
        write(exports.as_array(found), out)


def write(blocks: Iterable[bytes], out: Path | None) -> None:
    """To a file, with a word on stderr, or to stdout. Raises Invalid."""
    if out is None:
        for block in blocks:
            sys.stdout.write(block.decode())
        return
    try:
        with out.open("wb") as file:
            size = sum(file.write(block) for block in blocks)
    except OSError as error:
        raise Invalid(f"{out} cannot be written: {error.strerror}.") from None
    console(stderr=True).print(f"{size:,} bytes written to {out}.")
