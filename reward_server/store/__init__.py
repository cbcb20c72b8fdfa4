"""The store: one database behind two engines, reached only through short transactions.

SQLite runs in WAL mode with one write connection that takes the write lock at BEGIN (a deferred
transaction that upgrades fails at once and ignores busy_timeout), and many readers. Functions in
the sibling modules take a Connection, so that one transaction is one function. No transaction ever
spans I/O other than the database's own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url

P = ParamSpec("P")
T = TypeVar("T")

MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"
BUSY_MS: Final = 20_000
"""Longest wait for another process to finish its transaction; short ones on a starved machine."""


class UnsupportedDatabase(ValueError):
    """A database URL this store has not been built for."""


class Store:
    """Two engines on one database. Thread-safe; one per process.

    Args:
        url: SQLAlchemy URL, ``sqlite:///FILE``.
        full_sync: flush every commit to the disk (survives power loss, not only a crash).
    """

    def __init__(self, url: str, *, full_sync: bool = False) -> None:
        if make_url(url).get_backend_name() != "sqlite":
            raise UnsupportedDatabase(
                f"database {url!r} is not supported by this version; use sqlite:///FILE"
            )
        self._writer = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=60)
        self._readers = create_engine(url, pool_size=8, max_overflow=32)
        _prepare_sqlite(self._writer, "BEGIN IMMEDIATE", full_sync)
        _prepare_sqlite(self._readers, "BEGIN", full_sync)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; safe while other processes do the same."""
        # Alembic takes half a second to import, and scorer processes never migrate.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._writer.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``work`` in one write transaction: all of it is kept, or nothing."""
        with self._writer.begin() as connection:
            return work(connection, *args, **kwargs)

    def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``work`` on one consistent snapshot, without waiting for writers."""
        with self._readers.connect() as connection:
            return work(connection, *args, **kwargs)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot for as long as the block runs, for streaming large answers."""
        with self._readers.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._writer.dispose()
        self._readers.dispose()


def _prepare_sqlite(engine: Engine, begin: str, full_sync: bool) -> None:
    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={BUSY_MS}",
            "journal_mode=WAL",
            f"synchronous={'FULL' if full_sync else 'NORMAL'}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
