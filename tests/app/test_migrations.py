"""The database's schema: made by migrations alone, refused where it is another version's."""

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy import text as sql

from app import migrations, models
from app.db import Database
from app.errors import Unavailable
from app.experiments import service as experiments


def test_the_migrations_make_exactly_the_tables_of_the_models(any_database):
    with any_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, models.metadata()) == []


def test_upgrading_twice_changes_nothing(any_database):
    with any_database.write() as session:
        experiments.create(session, "kept")
    before = inspect(any_database.engine).get_table_names()
    migrations.upgrade(any_database.engine)
    migrations.check(any_database.engine)
    assert inspect(any_database.engine).get_table_names() == before
    with any_database.read() as session:
        assert experiments.by_name(session, "kept") is not None


def test_a_database_without_tables_is_refused(settings):
    database = Database(settings.database)
    with pytest.raises(Unavailable, match="revision none"):
        migrations.check(database.engine)
    database.dispose()


def test_a_database_of_a_newer_version_is_neither_used_nor_upgraded(any_database):
    with any_database.write() as session:
        session.execute(sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match="9999"):
        migrations.check(any_database.engine)
    with pytest.raises(Unavailable, match="does not know"):
        migrations.upgrade(any_database.engine)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_a_migration_that_breaks_half_way_leaves_the_database_as_it_was(kind, settings, request, monkeypatch):
    url = settings.database if kind == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    create = op.create_table

    def break_at_run(name, *columns, **options):
        if name == "run":
            raise RuntimeError("killed here")
        return create(name, *columns, **options)

    monkeypatch.setattr(op, "create_table", break_at_run)
    with pytest.raises(RuntimeError, match="killed here"):
        migrations.upgrade(database.engine)
    assert inspect(database.engine).get_table_names() == []
    monkeypatch.undo()
    migrations.upgrade(database.engine)
    migrations.check(database.engine)
    database.dispose()


def test_the_server_refuses_to_start_on_an_old_database(settings):
    from app import serve

    with pytest.raises(Unavailable, match="db upgrade"):
        try:
            serve.check(settings)
        except Unavailable as error:
            raise Unavailable(f"{error.message} {error.hint}") from None
