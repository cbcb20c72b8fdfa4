"""Forgetting what was kept long enough: results of jobs, and images nothing refers to.

A job that people answered keeps its items, for labels are kept for ever; of a purged job the row
stays, so that whoever asks late is told so. Images are forgotten here before their files go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, exists, select, update

from reward_server.store.locks import lock_items, lock_jobs, lock_name
from reward_server.store.tables import assignment, blob, idempotency, item, job

AT_ONCE: Final = 100
"""Most jobs or images of one transaction: nobody should wait for housekeeping."""


def old_jobs(connection: Connection, before: float) -> list[str]:
    """Jobs that ended before a time and are not purged yet."""
    old = select(job.c.id).where(job.c.purged_at.is_(None), job.c.finished_at < before)
    return list(connection.execute(old.limit(AT_ONCE)).scalars())


def purge_jobs(connection: Connection, ids: Sequence[str], now: float) -> None:
    """Forget the results of jobs that have ended."""
    machine = (item.c.job_id.in_(ids)) & (item.c.kind == "machine")
    items = lock_items(connection, connection.execute(select(item.c.id).where(machine)).scalars())
    lock_jobs(connection, ids)
    connection.execute(delete(assignment).where(assignment.c.item_id.in_(items)))
    connection.execute(delete(item).where(item.c.id.in_(items)))
    connection.execute(delete(idempotency).where(idempotency.c.job_id.in_(ids)))
    connection.execute(update(job).where(job.c.id.in_(ids)).values(purged_at=now))


def unused_blobs(connection: Connection, before: float) -> list[str]:
    """Images stored before a time that no item refers to."""
    return list(
        connection.execute(select(blob.c.sha256).where(_unused(before)).limit(AT_ONCE)).scalars()
    )


def forget_blobs(connection: Connection, hashes: Sequence[str], before: float) -> list[str]:
    """Forget those images that still nothing refers to; returns them, for their files to go."""
    # No request is accepted meanwhile that could refer to one of them.
    lock_name(connection, "accept")
    # One statement: an image that is put again meanwhile is looked at anew, and stays.
    mine = delete(blob).where(blob.c.sha256.in_(hashes), _unused(before))
    return list(connection.execute(mine.returning(blob.c.sha256)).scalars())


def _unused(before: float) -> ColumnElement[bool]:
    return (blob.c.created_at < before) & ~exists().where(item.c.sha256 == blob.c.sha256)
