"""Connections to SQLite and PostgreSQL, set up so that both keep the same promises.

SQLite runs in WAL mode with one write connection that takes the write lock at BEGIN (a deferred
transaction that upgrades fails at once and ignores busy_timeout), and many readers. PostgreSQL runs
several write transactions at once (``locks`` keeps them apart) and never trades durability away.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

BUSY_MS: Final = 20_000
"""Longest wait for another process to finish its transaction; short ones on a starved machine."""
CONNECT_S: Final = 10
WRITERS: Final = 8
"""Write transactions one process runs at once on PostgreSQL."""
_EXPECTED: Final = "use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"


class StoreError(Exception):
    """A database that cannot be used; the message says which and what to do, without a password."""


class UnsupportedDatabase(StoreError):
    """A database URL this store has not been built for."""


class DatabaseUnreachable(StoreError):
    """The database does not answer, or does not let us in."""


@dataclass(frozen=True)
class Engines:
    """Engines for writing and for reading, and how many write transactions may run at once."""

    url: URL
    write: Engine
    read: Engine
    writers: int

    @property
    def shown_url(self) -> str:
        """The URL for messages and logs: without the password."""
        return self.url.render_as_string(hide_password=True)


def open_engines(url: str, *, full_sync: bool) -> Engines:
    """Engines for a database URL; connects to nothing yet.

    Raises:
        UnsupportedDatabase: neither SQLite nor PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UnsupportedDatabase(f"this is no database URL; {_EXPECTED}") from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(parsed, full_sync)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return _postgresql(parsed.set(drivername="postgresql+psycopg"))
    raise UnsupportedDatabase(
        f"database driver {parsed.drivername!r} is not supported; {_EXPECTED}"
    )


def _sqlite(url: URL, full_sync: bool) -> Engines:
    write = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=60)
    read = create_engine(url, pool_size=8, max_overflow=32)
    _prepare_sqlite(write, "BEGIN IMMEDIATE", full_sync)
    _prepare_sqlite(read, "BEGIN", full_sync)
    return Engines(url, write, read, 1)


def _postgresql(url: URL) -> Engines:
    common: dict[str, Any] = {
        "connect_args": {"connect_timeout": CONNECT_S, "application_name": "reward_server"},
        "pool_pre_ping": True,
        "pool_timeout": 60,
    }
    write = create_engine(
        url, isolation_level="READ COMMITTED", pool_size=WRITERS, max_overflow=0, **common
    )
    # One snapshot per read: a job and its items must be of the same moment.
    read = create_engine(
        url, isolation_level="REPEATABLE READ", pool_size=8, max_overflow=8, **common
    )

    def on_connect(connection: Any, _record: Any) -> None:
        connection.execute(f"SET lock_timeout = {BUSY_MS}")
        connection.commit()

    event.listen(write, "connect", on_connect)
    return Engines(url, write, read, WRITERS)


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
