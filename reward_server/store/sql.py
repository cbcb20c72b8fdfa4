"""The few statements SQLAlchemy spells differently for each database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def _insert(connection: Connection, table: Table) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert ``rows``, leaving those alone whose key exists."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), list(rows))


def insert_or_refresh(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], column: str
) -> None:
    """Insert ``rows``; of those whose key exists, only ``column`` becomes the new one's."""
    if rows:
        statement = _insert(connection, table)
        fresh = {column: statement.excluded[column]}
        keys = list(table.primary_key.columns)
        refresh = statement.on_conflict_do_update(index_elements=keys, set_=fresh)
        connection.execute(refresh, list(rows))


def add_up(connection: Connection, table: Table, row: dict[str, Any], keys: Sequence[str]) -> None:
    """Insert ``row``, or add its other columns to those of the row with the same ``keys``."""
    statement = _insert(connection, table).values(row)
    sums = {name: table.c[name] + statement.excluded[name] for name in row if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=sums))
