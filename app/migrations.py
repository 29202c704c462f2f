"""Bring a database to this version's schema, or refuse to work on one that is newer or half-made."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy import text as sql

from app.errors import Unavailable
from app.resources import resource
from training.failpoints import failpoint

LOCK = 0x70726566  # "pref": any number of ours, for Postgres' advisory lock


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resource("alembic")).replace("%", "%%"))
    return config


def head() -> str:
    """The newest revision that this version knows."""
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert revision is not None
    return revision


def current(engine: Engine) -> str | None:
    """The database's revision; None for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine) -> None:
    """Migrate to the head in one transaction: a crash on the way leaves the database as it was.

    Raises Unavailable where the database was written by a newer Preflab.
    """
    known = {revision.revision for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    with engine.connect().execution_options(preflab_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sql("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        now = MigrationContext.configure(connection).get_current_revision()
        if now is not None and now not in known:
            raise Unavailable(
                f"The database is at revision {now}, which this version of Preflab does not know.",
                "It was written by a newer version: upgrade Preflab, or point PREFLAB_DATABASE_URL elsewhere.",
            )
        if now == head():
            return
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        failpoint("before_migration_commit")


def check(engine: Engine) -> None:
    """Raises Unavailable where the database is not at this version's schema."""
    now = current(engine)
    if now != head():
        raise Unavailable(
            f"The database is at revision {now or 'none'}; this version needs {head()}.",
            "Run `preflab db upgrade`.",
        )
