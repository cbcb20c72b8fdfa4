"""Promise: from any revision, migrations lead to exactly the tables the code works with and keep
what is in them; they can be taken back; a database that cannot be used is named with a remedy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

from reward_server.__main__ import main
from reward_server.store import MIGRATIONS, Store, UnsupportedDatabase
from reward_server.store.tables import metadata

REVISIONS = [
    one.revision for one in ScriptDirectory(str(MIGRATIONS)).walk_revisions("base", "heads")
]


def alembic(url: str, change: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        change(config, revision)
    engine.dispose()


def differences(connection: Connection) -> list[Any]:
    return compare_metadata(MigrationContext.configure(connection), metadata)


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_leads_to_the_tables_of_the_code(empty_database: str, revision: str) -> None:
    alembic(empty_database, command.upgrade, revision)
    columns = "run_id, reward, requests, items, bytes"
    kept = f"INSERT INTO traffic ({columns}) VALUES ('r', 'ocr', 1, 2, 3)"
    store = Store(empty_database)
    store.write(lambda c: c.execute(text(kept)))
    store.migrate()
    store.migrate()
    assert store.read(differences) == []
    rows = store.read(lambda c: c.execute(text("SELECT * FROM traffic")).all())
    store.close()
    assert [tuple(row) for row in rows] == [("r", "ocr", 1, 2, 3)]


def test_every_migration_can_be_taken_back(empty_database: str) -> None:
    store = Store(empty_database)
    store.migrate()
    store.close()
    alembic(empty_database, command.downgrade, "base")
    engine = create_engine(empty_database)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://u:secret@localhost/x", "u:secret@localhost"])
def test_an_unsupported_database_is_named_without_its_password(url: str) -> None:
    with pytest.raises(UnsupportedDatabase, match=r"use sqlite:///FILE or postgresql") as refused:
        Store(url)
    assert "secret" not in str(refused.value)


def test_an_unreachable_database_is_named_without_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "postgresql+psycopg://u:secret@127.0.0.1:9/x"
    assert main(["keys", "list", "--database", url, "--data", "unused"]) == 2
    said = capsys.readouterr().err
    assert "u:***@127.0.0.1:9/x" in said and "Is it running" in said and "secret" not in said
