"""Who may change what at the same time.

SQLite's write transactions exclude each other; PostgreSQL's do not, and these locks make the same
functions correct there. One order for everybody, so that nobody waits in a circle: first a name (a
worker, accepting, sweeping), then a key's usage, then items by id, then jobs by id. Whoever changes
a lease holds its item; whoever changes a job's state holds the job. What was read before a lock is
read again after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from reward_server.store.tables import item, job

_THESE: Final = job.c.id.in_(bindparam("ids"))


def lock_name(connection: Connection, name: str) -> None:
    """Be the only transaction under ``name`` until the end; waits for the one before."""
    if _concurrent(connection):
        connection.execute(select(func.pg_advisory_xact_lock(_number(name))))


def try_lock_name(connection: Connection, name: str) -> bool:
    """``lock_name`` without waiting; False if another transaction has the name."""
    if not _concurrent(connection):
        return True
    return bool(connection.execute(select(func.pg_try_advisory_xact_lock(_number(name)))).scalar())


def lock_items(connection: Connection, ids: Iterable[int], *, wait: bool = True) -> list[int]:
    """Hold items until the end; without ``wait`` only those nobody else holds. Returns them."""
    wanted = sorted(set(ids))
    if not wanted or not _concurrent(connection):
        return wanted
    query = select(item.c.id).where(item.c.id.in_(wanted)).order_by(item.c.id)
    locked = query.with_for_update(key_share=True, skip_locked=not wait)
    return list(connection.execute(locked).scalars())


def lock_jobs(connection: Connection, ids: Iterable[str]) -> None:
    """Hold jobs until the end: the last lock a transaction takes."""
    wanted = list(ids)
    if wanted:
        lock_jobs_where(connection, _THESE, {"ids": wanted})


def lock_jobs_where(
    connection: Connection, which: ColumnElement[bool], values: Mapping[str, Any]
) -> None:
    """``lock_jobs`` for those that match a condition with these values."""
    if _concurrent(connection):
        query = select(job.c.id).where(which).order_by(job.c.id)
        connection.execute(query.with_for_update(key_share=True), values)


def _concurrent(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _number(name: str) -> int:
    """PostgreSQL names its advisory locks with 64-bit integers."""
    digest = hashlib.sha256(f"reward_server:{name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
