"""The few statements SQLAlchemy spells differently for each database, each built once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert ``rows``, leaving those alone whose key exists."""
    if rows:
        connection.execute(_insert_new(connection.dialect.name, table), list(rows))


def insert_or_refresh(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], columns: tuple[str, ...]
) -> None:
    """Insert ``rows``; of those whose key exists, only ``columns`` become the new one's."""
    if rows:
        refresh = _insert_or_refresh(connection.dialect.name, table, columns)
        connection.execute(refresh, list(rows))


def add_up(
    connection: Connection, table: Table, row: dict[str, Any], columns: tuple[str, ...]
) -> None:
    """Insert ``row``, or add its ``columns`` to those of the row with the same key."""
    connection.execute(_add_up(connection.dialect.name, table, columns), [row])


def _insert(dialect: str, table: Table) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


@cache
def _insert_new(dialect: str, table: Table) -> Any:
    return _insert(dialect, table).on_conflict_do_nothing()


@cache
def _insert_or_refresh(dialect: str, table: Table, columns: tuple[str, ...]) -> Any:
    statement = _insert(dialect, table)
    fresh = {name: statement.excluded[name] for name in columns}
    keys = list(table.primary_key.columns)
    return statement.on_conflict_do_update(index_elements=keys, set_=fresh)


@cache
def _add_up(dialect: str, table: Table, columns: tuple[str, ...]) -> Any:
    statement = _insert(dialect, table)
    sums = {name: table.c[name] + statement.excluded[name] for name in columns}
    keys = list(table.primary_key.columns)
    return statement.on_conflict_do_update(index_elements=keys, set_=sums)
