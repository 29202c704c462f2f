"""`preflab`: the same services on the same database as the pages. docs/cli.md shows every command and its JSON.

Exit code 0: done; 1: the thing asked about failed; 2: the input was wrong, with a sentence on stderr.
"""

from __future__ import annotations

import sys

import typer

from app.cli import data, launch, runs, start, system
from app.errors import AppError

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
data.add_to(cli)
system.add_to(cli)


def main() -> None:
    """The command `preflab`."""
    from sqlalchemy.exc import DBAPIError

    from app.database_errors import from_database

    try:
        cli()
    except AppError as error:
        sys.exit(complain(error))
    except DBAPIError as error:
        sys.exit(complain(from_database(error)))
    except BrokenPipeError:  # `preflab runs list | head`
        sys.stderr.close()
        sys.exit(1)


def complain(error: AppError) -> int:
    """Say on stderr what is wrong, and return the exit code."""
    print(f"preflab: {' '.join(part for part in (error.message, error.hint) if part)}", file=sys.stderr)
    return 2 if error.status < 500 else 1
