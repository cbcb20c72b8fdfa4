"""Who may change what at the same time.

SQLite's write transactions exclude each other; PostgreSQL's do not, and these locks make the same
functions correct there. One order for everybody, so that nobody waits in a circle: first a name (a
worker, accepting, sweeping), then a key's usage, then items by id, then jobs by id. Whoever changes
a lease holds its item; whoever changes a job's state holds the job. What was read before a lock is
read again after. Out of this order locks are only tried for, never waited for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from reward_server.store.tables import item, job

_NAME: Final = select(func.pg_advisory_xact_lock(bindparam("number")))
_ITEMS: Final = select(item.c.id).where(item.c.id.in_(bindparam("ids"))).order_by(item.c.id)
_ALL_ITEMS: Final = _ITEMS.with_for_update(key_share=True)
_FREE_ITEMS: Final = _ITEMS.with_for_update(key_share=True, skip_locked=True)


def holding_jobs(which: ColumnElement[bool]) -> Select[Any]:
    """The statement that holds the jobs that match, for ``lock_jobs``."""
    query = select(job.c.id).where(which).order_by(job.c.id)
    return query.with_for_update(key_share=True)


_THESE: Final = holding_jobs(job.c.id.in_(bindparam("ids")))


def lock_name(connection: Connection, name: str) -> None:
    """Be the only transaction under ``name`` until the end; waits for the one before."""
    if _concurrent(connection):
        connection.execute(_NAME, {"number": _number(name)})


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
    query = _ALL_ITEMS if wait else _FREE_ITEMS
    return list(connection.execute(query, {"ids": wanted}).scalars())


def lock_jobs(connection: Connection, ids: Iterable[str], held: Select[Any] = _THESE) -> None:
    """Hold jobs until the end, or those that ``held`` asks for: a transaction's last lock."""
    wanted = list(ids)
    if wanted and _concurrent(connection):
        connection.execute(held, {"ids": wanted})


def _concurrent(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _number(name: str) -> int:
    """PostgreSQL names its advisory locks with 64-bit integers."""
    digest = hashlib.sha256(f"reward_server:{name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
