"""Alembic's entry. The engine comes from app.migrations, or from the settings when the alembic command is used."""

from alembic import context
from sqlalchemy import Connection

from app import models
from app.db import make_engine
from app.settings import load_settings


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=models.metadata(), render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with make_engine(load_settings().database).connect() as own:
        migrate(own)
        own.commit()
