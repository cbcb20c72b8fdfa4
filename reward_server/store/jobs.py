"""Jobs in the store: accepting, reading, settling, cancelling, acknowledging.

Every function is one transaction's work on a Connection; ``now`` is epoch seconds.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, func, select, tuple_, update

from reward_server.domain.jobs import (
    NEVER,
    Blob,
    ItemKind,
    NewItem,
    NewJob,
    advance,
)
from reward_server.domain.rates import Rate
from reward_server.store import rates
from reward_server.store.locks import lock_items, lock_jobs, lock_name
from reward_server.store.settling import announce, note, settle
from reward_server.store.sql import add_up, insert_or_refresh
from reward_server.store.tables import assignment, blob, idempotency, item, job, traffic
from shared.schema import TERMINAL

KEPT_FINGERPRINT_S: Final = 86400.0
"""How long a human request without a key of its own is recognised when repeated."""


_SHOWN: Final = job.c.purged_at.is_(None) & (job.c.kind != "gold")
"""Golds hang on jobs of their own, which nobody has asked for."""

_REPLAYED: Final = select(idempotency).where(idempotency.c.key == bindparam("key"))
_PENDING: Final = select(func.count()).where(
    item.c.status == "pending", item.c.kind == bindparam("kind")
)
_NEW_JOB: Final = job.insert()
_NEW_ITEM: Final = item.insert()
_HEAD: Final = select(job).where(job.c.id == bindparam("id"), _SHOWN)
_ITEMS: Final = select(item).where(item.c.job_id == bindparam("id")).order_by(item.c.position)


class QueueFull(Exception):
    """Too many items wait already; nothing was accepted."""

    def __init__(self, depth: int, limit: int) -> None:
        self.depth, self.limit = depth, limit
        super().__init__(f"{depth} items are waiting, the limit is {limit}")


class UnknownJob(Exception):
    """There is no such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r} on this server")


class IdempotencyMismatch(Exception):
    """The idempotency key was used before, for another request."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"this Idempotency-Key belongs to the different request of job {job_id}")


@dataclass(frozen=True)
class JobRecord:
    """A job's row and its items' rows in request order; every job has items."""

    job: Row[Any]
    items: list[Row[Any]]


def replayed(connection: Connection, key: str | None, fingerprint: str, now: float) -> str | None:
    """Id of the job an earlier, equal request with this idempotency key made, if any.

    Raises:
        IdempotencyMismatch: the key was used for another request.
    """
    row = connection.execute(_REPLAYED, {"key": key}).first()
    if row is None:
        return None
    if str(key).startswith("fingerprint:") and row.created_at < now - KEPT_FINGERPRINT_S:
        return None
    if row.fingerprint != fingerprint:
        raise IdempotencyMismatch(row.job_id)
    return str(row.job_id)


def accept(
    connection: Connection, new: NewJob, now: float, limit: int, rate: Rate | None = None
) -> tuple[str, bool]:
    """Take a job in, or find the one its idempotency key made before, which costs nothing.

    Returns:
        The job's id, and whether it existed already.

    Raises:
        QueueFull: more than ``limit`` items of its kind would wait.
        RateExceeded: the key of ``rate`` sends too many images.
        IdempotencyMismatch: as ``replayed``.
    """
    # One at a time: the limit holds, and one idempotency key makes one job.
    lock_name(connection, "accept")
    before = replayed(connection, new.idempotency, new.fingerprint, now)
    if before is not None:
        return before, True
    waiting = sum(one.error is None for one in new.items)
    depth = pending(connection, new.kind)
    if waiting and depth + waiting > limit:
        raise QueueFull(depth, limit)
    if rate is not None:
        rates.spend(connection, rate, len(new.items), now)
    add_blobs(connection, [one.image for one in new.items if one.image is not None], now)
    connection.execute(_NEW_JOB, [job_row(new, now)])
    connection.execute(_NEW_ITEM, [item_row(new, i, now) for i in range(len(new.items))])
    if new.idempotency is not None:
        _remember(connection, new.idempotency, new.fingerprint, new.id, now)
    count = {"requests": 1, "items": len(new.items), "bytes": new.request_bytes}
    key = {"run_id": new.run_id or "", "reward": new.reward}
    add_up(connection, traffic, key | count, tuple(count))
    if not waiting:
        settle(connection, [new.id], now)
    return new.id, False


def _remember(connection: Connection, key: str, fingerprint: str, job_id: str, now: float) -> None:
    made = {"fingerprint": fingerprint, "job_id": job_id, "created_at": now}
    insert_or_refresh(connection, idempotency, [{"key": key} | made], tuple(made))


def forget_key(connection: Connection, key: str, job_id: str) -> None:
    """Let the next request with an idempotency key make a new job, if ``job_id`` is its last."""
    mine = (idempotency.c.key == key) & (idempotency.c.job_id == job_id)
    connection.execute(delete(idempotency).where(mine))


def job_row(new: NewJob, now: float) -> dict[str, Any]:
    """A job as it is stored when it is accepted."""
    return {
        "id": new.id,
        "kind": new.kind,
        "reward": new.reward,
        "model": new.model,
        "status": "queued",
        "rev": 1,
        "run_id": new.run_id,
        "group_id": new.group_id,
        "step": new.step,
        "options": new.options,
        "instruction": new.instruction,
        "webhook": new.webhook,
        "votes": new.rules.votes,
        "min_votes": new.rules.min_votes,
        "quorum": new.rules.quorum,
        "max_skips": new.rules.max_skips,
        "max_votes": new.rules.max_votes,
        "min_agreement": new.rules.min_agreement,
        "weights": new.weights,
        "n_items": len(new.items),
        "n_done": 0,
        "created_at": now,
    }


def item_row(new: NewJob, position: int, now: float) -> dict[str, Any]:
    """One of its items as it is stored when it is accepted."""
    one: NewItem = new.items[position]
    code, message = one.error or (None, None)
    return {
        "job_id": new.id,
        "position": position,
        "kind": new.kind,
        "reward": new.reward,
        "given_id": one.id,
        "prompt": one.prompt,
        "sha256": None if one.image is None else one.image.sha256,
        "target": one.target,
        "status": "pending" if one.error is None else "error",
        "error_code": code,
        "error_message": message,
        "need": new.rules.votes,
        "done": 0,
        "leased": 0,
        "likes": 0,
        "dislikes": 0,
        "skips": 0,
        "attempts": 0,
        "priority": new.priority,
        "available_at": now + new.delay_s,
        "deadline_at": NEVER if new.deadline_s is None else now + new.deadline_s,
        "shuffle": random.getrandbits(30),
    }


def pending(connection: Connection, kind: ItemKind) -> int:
    """Items of that kind without an answer."""
    return int(connection.execute(_PENDING, {"kind": kind}).scalar_one())


def add_blobs(connection: Connection, blobs: Iterable[Blob], now: float) -> None:
    """JobRecord images whose files are stored; known ones are as good as new."""
    rows = {one.sha256: asdict(one) | {"created_at": now} for one in blobs}
    insert_or_refresh(connection, blob, list(rows.values()), ("created_at",))


def keep_blobs(connection: Connection, blobs: Iterable[Blob], now: float) -> None:
    """``add_blobs`` by itself, for images of a request that was refused."""
    # Several rows, in any order, as in ``accept``: two that cross would wait in a circle.
    lock_name(connection, "accept")
    add_blobs(connection, blobs, now)


def find_blobs(connection: Connection, hashes: Iterable[str]) -> dict[str, Blob]:
    """Those images that are stored, by hash."""
    query = select(blob).where(blob.c.sha256.in_(list(hashes)))
    return {
        row.sha256: Blob(row.sha256, row.mime, row.bytes, row.width, row.height)
        for row in connection.execute(query)
    }


def load(connection: Connection, ids: Sequence[str]) -> list[JobRecord]:
    """Jobs with their items, in the order of ``ids``; unknown and purged ids are left out."""
    kept = job.c.id.in_(list(ids)) & _SHOWN
    rows = {r.id: r for r in connection.execute(select(job).where(kept))}
    items: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    query = (
        select(item).where(item.c.job_id.in_(list(rows))).order_by(item.c.job_id, item.c.position)
    )
    for row in connection.execute(query):
        items[row.job_id].append(row)
    return [JobRecord(rows[i], items[i]) for i in dict.fromkeys(ids) if i in rows]


def load_news(connection: Connection, job_id: str, rev: int | None = None) -> JobRecord | None:
    """A job if it is over or its revision is not ``rev``, else its row alone; None if unknown."""
    row = connection.execute(_HEAD, {"id": job_id}).first()
    if row is None:
        return None
    if row.status not in TERMINAL and rev in (None, row.rev):
        return JobRecord(row, [])
    return JobRecord(row, list(connection.execute(_ITEMS, {"id": job_id})))


@dataclass(frozen=True)
class Head:
    """What tells whether a job is worth loading, and how large it is."""

    rev: int
    over: bool
    n_items: int


def heads(connection: Connection, ids: Sequence[str]) -> dict[str, Head]:
    """Of every known job among ``ids``."""
    kept = job.c.id.in_(list(ids)) & _SHOWN
    query = select(job.c.id, job.c.rev, job.c.status, job.c.n_items).where(kept)
    rows = connection.execute(query)
    return {row.id: Head(row.rev, row.status in TERMINAL, row.n_items) for row in rows}


def purged_at(connection: Connection, job_id: str) -> float | None:
    """When the results of a job were purged; None for jobs that are kept or unknown."""
    return connection.execute(select(job.c.purged_at).where(job.c.id == job_id)).scalar()


def search(
    connection: Connection,
    *,
    run_id: str | None,
    group_id: str | None,
    status: str | None,
    after: str | None,
    limit: int,
) -> list[tuple[str, int]]:
    """Ids of jobs and how many items each has, newest first, narrowed by whatever is given.

    Raises:
        UnknownJob: ``after``, the job whose successors in this order are wanted.
    """
    newest = select(job.c.id, job.c.n_items).order_by(job.c.created_at.desc(), job.c.id.desc())
    query = newest.where(_SHOWN).limit(limit)
    if after is not None:
        created_at = connection.execute(select(job.c.created_at).where(job.c.id == after)).scalar()
        if created_at is None:
            raise UnknownJob(after)
        query = query.where(tuple_(job.c.created_at, job.c.id) < (created_at, after))
    for column, value in (
        (job.c.run_id, run_id),
        (job.c.group_id, group_id),
        (job.c.status, status),
    ):
        if value is not None:
            query = query.where(column == value)
    return [(row.id, row.n_items) for row in connection.execute(query)]


def cancel(connection: Connection, job_id: str, now: float) -> bool:
    """Skip whatever has no answer yet; False if the job had ended before (nothing changes)."""
    mine = select(item.c.id).where(item.c.job_id == job_id)
    lock_items(connection, connection.execute(mine).scalars())
    lock_jobs(connection, [job_id])
    row = connection.execute(select(job).where(job.c.id == job_id)).one()
    if row.status in TERMINAL:
        return False
    live = assignment.c.item_id.in_(mine) & (assignment.c.state == "leased")
    connection.execute(update(assignment).where(live).values(state="revoked"))
    connection.execute(
        update(item)
        .where(item.c.job_id == job_id, item.c.status == "pending")
        .values(status="skipped", leased=0, error_code="cancelled", error_message="job cancelled")
    )
    connection.execute(update(item).where(item.c.job_id == job_id).values(leased=0))
    values = {
        "status": advance(row.status, "cancelled"),
        "rev": row.rev + 1,
        "n_done": row.n_items,
        "settles_at": None,
        "finished_at": now,
    }
    connection.execute(update(job).where(job.c.id == job_id).values(values))
    scored = (item.c.job_id == job_id) & (item.c.status == "ok")
    ok = connection.execute(select(func.count()).where(scored)).scalar_one()
    announce(connection, row, "cancelled", ok, now)
    note(connection, "cancel", "requester", now, job_id=job_id)
    return True


def acknowledge(connection: Connection, job_id: str, now: float) -> bool:
    """Note that the rewards were used; False if they had been before (nothing changes)."""
    fresh = (job.c.id == job_id) & job.c.acked_at.is_(None)
    values = {"acked_at": now, "rev": job.c.rev + 1}
    if connection.execute(update(job).where(fresh).values(values)).rowcount == 0:
        return False
    note(connection, "ack", "requester", now, job_id=job_id)
    return True
