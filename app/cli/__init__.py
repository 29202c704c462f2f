"""`preflab`: the same services on the same database as the pages. docs/cli.md shows every command and its JSON.

Exit code 0: done; 1: the thing asked about failed; 2: the input was wrong, with a sentence on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from app.cli import answers, data, launch, results, runs, start, system
from app.errors import AppError, Invalid

cli = typer.Typer(
    help="A laboratory for preference-tuning small language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
start.add_to(cli)
launch.add_to(cli)
runs.add_to(cli)
results.add_to(cli)
data.add_to(cli)
answers.add_to(data.imports, data.exports)
system.add_to(cli)


def main() -> None:
    """The command `preflab`."""
    from sqlalchemy.exc import DBAPIError

    from app.database_errors import from_database

    try:
        refuse_foreign_bytes(sys.argv)
        cli()
    except AppError as error:
        sys.exit(complain(error))
    except DBAPIError as error:
        sys.exit(complain(from_database(error)))
    except BrokenPipeError:  # `preflab runs list | head`
        sys.stderr.close()
        sys.exit(1)


def refuse_foreign_bytes(arguments: Sequence[str]) -> None:
    """Raises Invalid where an argument is not UTF-8: no database could keep it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode("utf-8", "replace").decode()
            raise Invalid(f"“{shown[:100]}” is not UTF-8.", "Write it in UTF-8, or rename the file.") from None


def complain(error: AppError) -> int:
    """Say on stderr what is wrong, and return the exit code."""
    print(f"preflab: {' '.join(part for part in (error.message, error.hint) if part)}", file=sys.stderr)
    return 2 if error.status < 500 else 1
