"""Promise: migrations lead to exactly the tables the code works with, forwards and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from reward_server.store import MIGRATIONS, Store, UnsupportedDatabase
from reward_server.store.tables import metadata


def test_migrated_tables_are_those_of_the_code(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'q.sqlite3'}")
    store.migrate()
    store.migrate()
    assert store.read(lambda c: compare_metadata(MigrationContext.configure(c), metadata)) == []
    created = store.read(lambda c: c.execute(text("SELECT sql FROM sqlite_master")).scalars().all())
    store.close()
    assert sum("CHECK" in (sql or "") for sql in created) == 2


def test_every_migration_can_be_taken_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'q.sqlite3'}"
    store = Store(url)
    store.migrate()
    store.close()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_an_unsupported_database_is_named() -> None:
    with pytest.raises(UnsupportedDatabase, match="mysql"):
        Store("mysql://localhost/x")
