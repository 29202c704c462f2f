"""`preflab import`, `preflab datasets`, `preflab export`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from app.cli.common import AsJson, RunName, bench, console, emit, moment, note, parse_sets, table, the_run
from app.datasets import service
from app.datasets.flaws import flaws_of, in_words
from app.datasets.queries import as_json as dataset_json
from app.errors import Invalid, NotFound
from app.runs import series

imports = typer.Typer(help="Take in data made elsewhere.", no_args_is_help=True, rich_markup_mode=None)
datasets = typer.Typer(help="The data sets.", no_args_is_help=True, rich_markup_mode=None)
exports = typer.Typer(help="Give data out.", no_args_is_help=True, rich_markup_mode=None)


def add_to(cli: typer.Typer) -> None:
    cli.add_typer(imports, name="import")
    cli.add_typer(datasets, name="datasets")
    cli.add_typer(exports, name="export")


@imports.command("dataset")
def import_dataset(
    file: Annotated[Path, typer.Argument(help="A JSON Lines file.")],
    name: Annotated[str, typer.Option(help="The data set's name: `data:NAME` in a config.")],
    labelled_by: Annotated[
        list[str],
        typer.Option(metavar="JUDGE", help="Who said which answer is better, as reward:NAME; may be repeated."),
    ] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Check a data file row by row and take it in, or nothing of it. The same name again makes a new version."""
    with bench(migrate=True) as here:
        found = service.import_file(here.database, here.settings, file, name, labelled_by)
    if as_json:
        emit({"imported": found.rows, "dataset": dataset_json(found)})
    else:
        print(f"data:{found.name}@{found.version}: {found.rows:,} rows, {found.kind}.")
        for sentence in in_words(flaws_of(found.facts)):
            note(sentence)


@datasets.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """Every version of every data set."""
    from app.datasets import queries

    with bench() as here, here.database.read() as session:
        found = queries.all_versions(session)
    if as_json:
        emit({"rows": [dataset_json(row) for row in found]})
        return
    rows = [
        [
            f"data:{row.name}@{row.version}",
            row.kind,
            f"{row.rows:,}",
            f"{row.bytes / 1e6:,.1f} MB",
            moment(row.created_at),
        ]
        for row in found
    ]
    table(["data set", "kind", "rows", "size", "made"], rows, "There are no data sets yet: `preflab import dataset`.")


@datasets.command("refilter")
def refilter_pairs(
    run: RunName,
    changes: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A threshold, such as max_prompt_similarity=0.9; may be repeated."
        ),
    ] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Filter again what an augment run made, with other thresholds: a new version of its pairs, nothing is generated."""
    from app.datasets.synthesis import refilter

    thresholds = parse_sets(changes, example="max_prompt_similarity=0.9")
    with bench() as here:
        with here.database.read() as session:
            number = the_run(session, run).id
        found = refilter(here.database, here.settings, number or 0, thresholds)
    if as_json:
        emit({"dataset": dataset_json(found)})
        return
    prompts = found.facts["funnel"]["prompts"]
    print(f"data:{found.name}@{found.version}: {found.rows:,} pairs, of {prompts['new']:,} prompts.")
    for reason, count in prompts["dropped"].items():
        note(f"Dropped: {count:,} ({reason}).")


@exports.command("metrics")
def export_metrics(
    run: RunName,
    out: Annotated[Path | None, typer.Option(help="A file; .csv makes a table. Else JSON Lines on stdout.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every metric of a run, one row a step. A later attempt replaces what earlier ones wrote behind its first step."""
    with bench() as here, here.database.read() as session:
        found = the_run(session, run)
        rows = by_step(series.standing(series.read(session, found.id or 0)[0]))
    if as_json:
        emit({"run": {"id": found.id, "name": found.name}, "rows": rows})
        return
    if not rows:
        raise NotFound(f"“{found.name}” has measured nothing yet.")
    text = as_csv(rows) if out is not None and out.suffix == ".csv" else as_lines(rows)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text)
    except OSError as error:
        raise Invalid(f"{out} cannot be written: {error.strerror}.") from None
    console(stderr=True).print(f"{len(rows):,} steps written to {out}.")


def by_step(metrics: Iterable[series.Metrics]) -> list[dict[str, Any]]:
    """Measurements in order, as rows {"step", "attempt", "time", "values"}; of one step's, the later value counts."""
    rows: dict[int, dict[str, Any]] = {}
    for each in metrics:
        row = rows.setdefault(each.step, {"step": each.step, "attempt": 0, "time": 0.0, "values": {}})
        row["attempt"], row["time"] = each.attempt, each.time
        row["values"].update(each.values)
    return list(rows.values())


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(orjson.dumps(row).decode() + "\n" for row in rows)


def as_csv(rows: list[dict[str, Any]]) -> str:
    keys = sorted({key for row in rows for key in row["values"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "attempt", "time", *map(_no_formula, keys)])
    for row in rows:
        writer.writerow([row["step"], row["attempt"], row["time"], *(row["values"].get(key, "") for key in keys)])
    return text.getvalue()


def _no_formula(cell: str) -> str:
    """A spreadsheet would run a cell that begins like this."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
