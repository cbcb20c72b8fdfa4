"""The store: one database, SQLite or PostgreSQL, reached only through short transactions.

Functions in the sibling modules take a Connection, so that one transaction is one function. No
transaction ever spans I/O other than the database's own. The statements of every request are built
once, as constants of their module: to build one takes longer than to have SQLite answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from reward_server.store.engines import (
    DatabaseUnreachable,
    StoreError,
    UnsupportedDatabase,
    open_engines,
)
from reward_server.store.locks import lock_name

__all__ = ["MIGRATIONS", "DatabaseUnreachable", "Store", "StoreError", "UnsupportedDatabase"]

P = ParamSpec("P")
T = TypeVar("T")

MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"


class Store:
    """Engines on one database. Thread-safe; one per process, any number of processes.

    Args:
        url: SQLAlchemy URL, ``sqlite:///FILE`` or ``postgresql+psycopg://USER@HOST/NAME``.
        full_sync: SQLite: flush every commit to the disk (survives power loss, not only a crash).
            PostgreSQL always does.

    Raises:
        UnsupportedDatabase: the URL names neither.
    """

    def __init__(self, url: str, *, full_sync: bool = False) -> None:
        self._engines = open_engines(url, full_sync=full_sync)

    @property
    def writers(self) -> int:
        """Write transactions that may run at once in this process."""
        return self._engines.writers

    def migrate(self) -> None:
        """Bring the schema to the newest revision; safe while other processes do the same.

        Raises:
            DatabaseUnreachable: it does not answer, or does not let us in.
        """
        # Alembic takes half a second to import, and scorer processes never migrate.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            with self._engines.write.begin() as connection:
                lock_name(connection, "migrate")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except OperationalError as error:
            why = str(error.orig).strip().partition("\n")[0]
            raise DatabaseUnreachable(
                f"cannot use the database {self._engines.shown_url}: {why}. "
                "Is it running, does the database exist, may this user create tables in it?"
            ) from error

    def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``work`` in one write transaction: all of it is kept, or nothing."""
        with self._engines.write.begin() as connection:
            return work(connection, *args, **kwargs)

    def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``work`` on one consistent snapshot, without waiting for writers."""
        with self._engines.read.connect() as connection:
            return work(connection, *args, **kwargs)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot for as long as the block runs, for streaming large answers."""
        with self._engines.read.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engines.write.dispose()
        self._engines.read.dispose()
