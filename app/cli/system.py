"""`preflab doctor`, `preflab db`, `preflab token`."""

from __future__ import annotations

import enum
import socket
import sqlite3
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.engine import make_url

from app import migrations, tokens
from app.auth import Role
from app.cli.common import AsJson, bench, emit, moment, note, refuse_missing_file, table
from app.cli.links import server_address, shown_address
from app.db import Database
from app.errors import Invalid
from app.settings import load_settings
from app.system import queries

db = typer.Typer(help="The database.", no_args_is_help=True, rich_markup_mode=None)
token = typer.Typer(help="Who may come in.", no_args_is_help=True, rich_markup_mode=None)


class RoleName(enum.StrEnum):
    """The roles that a token can have."""

    VIEWER = "viewer"
    RUNNER = "runner"
    ADMIN = "admin"

    @property
    def role(self) -> Role:
        return Role[self.name]


def add_to(cli: typer.Typer) -> None:
    cli.command("doctor")(doctor)
    cli.command("workers")(workers)
    cli.add_typer(db, name="db")
    cli.add_typer(token, name="token")


def doctor(as_json: AsJson = False) -> None:
    """What works on this machine, what does not, and what to do. Exit code 1 where something does not."""
    from app.system.doctor import examine

    findings = list(examine(load_settings()))
    if as_json:
        emit({"rows": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:16} {finding.detail}")
            if finding.hint:
                print(f"{'':22} {finding.hint}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def workers(
    here: Annotated[bool, typer.Option("--here", help="Only this machine's; exit code 1 where none is alive.")] = False,
    as_json: AsJson = False,
) -> None:
    """The workers that were seen, and their devices."""
    with bench() as opened, opened.database.read() as session:
        found = queries.workers(session)
    if here:
        found = [row for row in found if row["host"] == socket.gethostname()]
    if as_json:
        emit({"rows": found})
    else:
        rows = [
            [
                row["name"],
                "alive" if row["alive"] else f"silent since {moment(row['seen_at'])}",
                ", ".join(device["name"] for device in row["devices"]),
            ]
            for row in found
        ]
        table(
            ["worker", "state", "devices"], rows, "No worker was seen yet: `preflab up` or `preflab worker` starts one."
        )
    if here and not any(row["alive"] for row in found):
        raise typer.Exit(1)


@db.command("upgrade")
def upgrade(as_json: AsJson = False) -> None:
    """Bring the database to this version's schema, or make it."""
    with bench(migrate=True):
        revision = migrations.head()
    if as_json:
        emit({"revision": revision})
    else:
        print(f"The database is at revision {revision}.")


@db.command("check")
def check(as_json: AsJson = False) -> None:
    """Is the database at this version's schema? Exit code 1 where not."""
    settings = load_settings()
    refuse_missing_file(settings)
    database = Database(settings.database)
    try:
        found, wanted = migrations.current(database.engine), migrations.head()
    finally:
        database.dispose()
    if as_json:
        emit({"revision": found, "head": wanted, "ok": found == wanted})
    else:
        print(f"The database is at revision {found or 'none'}; this version needs {wanted}.")
    if found != wanted:
        raise typer.Exit(1)


@db.command("backup")
def backup(file: Annotated[Path, typer.Argument(help="A new file.")], as_json: AsJson = False) -> None:
    """Copy the SQLite database, also while it is in use. Run directories and data sets are plain files: copy the home."""
    with bench() as here:
        url = make_url(here.settings.database)
        if url.get_backend_name() != "sqlite":
            raise Invalid("This database is not SQLite.", "Use pg_dump.")
        if file.exists():
            raise Invalid(f"{file} exists already.", "Name a new file.")
        source, target = sqlite3.connect(str(url.database)), sqlite3.connect(file)
        try:
            source.backup(target)
        finally:
            target.close()
            source.close()
        file.chmod(0o600)
    if as_json:
        emit({"file": str(file), "bytes": file.stat().st_size})
    else:
        print(f"{file}: {file.stat().st_size / 1e6:,.1f} MB.")


@token.command("create")
def create_token(
    name: Annotated[str, typer.Option(help="Whose or what for it is.")] = "script",
    role: Annotated[RoleName, typer.Option(help="What it may do.")] = RoleName.RUNNER,
    as_json: AsJson = False,
) -> None:
    """An API token, for `Authorization: Bearer ...`. It is shown once."""
    with bench(migrate=True) as here, here.database.write() as session:
        row, secret = tokens.create(session, tokens.API, role.role, name)
    if as_json:
        emit({"id": row.id, "kind": row.kind, "name": row.name, "role": row.role, "token": secret})
    else:
        print(secret)
        note("Keep it safe: it is not shown again. `preflab token revoke` ends it.")


@token.command("login")
def login_token(
    name: Annotated[str, typer.Option(help="Who signs in with it.")] = "me",
    role: Annotated[RoleName, typer.Option(help="What they may do.")] = RoleName.ADMIN,
    as_json: AsJson = False,
) -> None:
    """A link that signs one browser in, once, within a day."""
    with bench(migrate=True) as here, here.database.write() as session:
        secret = tokens.create(session, tokens.LOGIN, role.role, name)[1]
    link = f"{shown_address(here.settings, server_address(here.settings))}/login?token={secret}"
    if as_json:
        emit({"url": link, "name": name, "role": role.value})
    else:
        print(link)


@token.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """Every token that lets somebody in. The secrets themselves are not kept."""
    with bench() as here, here.database.read() as session:
        found = tokens.listing(session)
    if as_json:
        keys = ("id", "kind", "name", "role", "created_at", "expires_at")
        emit({"rows": [{key: getattr(row, key) for key in keys} for row in found]})
        return
    rows = [[str(r.id), r.kind, r.name, r.role, moment(r.created_at), moment(r.expires_at) or "never"] for r in found]
    table(["id", "kind", "name", "role", "made", "ends"], rows, "There are no tokens.")


@token.command("revoke")
def revoke_token(
    token_id: Annotated[int, typer.Argument(metavar="ID", help="See `preflab token list`.")], as_json: AsJson = False
) -> None:
    """End a token, or a browser's session, at once."""
    with bench() as here, here.database.write() as session:
        row = tokens.revoke(session, token_id)
    if as_json:
        emit({"revoked": row.id})
    else:
        print(f"Token {row.id} ({row.kind}, {row.name}) is revoked.")
