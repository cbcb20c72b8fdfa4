"""How changes of items become changes of jobs: the only place that moves a job and its ``rev``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from reward_server.queue import advance, decide_job
from reward_server.store.locks import lock_jobs
from reward_server.store.tables import event, item, job
from shared.schema import TERMINAL, ItemErrorCode, ItemStatus, Json


def settle(connection: Connection, ids: Iterable[str], now: float, settle_s: float = 0.0) -> None:
    """Recompute the state of jobs whose items changed, and let their ``rev`` grow.

    ``settle_s`` after its last label a job answered by people ends, not before.
    """
    ids = sorted(set(ids))
    lock_jobs(connection, ids)
    counts: defaultdict[str, dict[ItemStatus, int]] = defaultdict(dict)
    tally = select(item.c.job_id, item.c.status, func.count()).where(item.c.job_id.in_(ids))
    for job_id, status, n in connection.execute(tally.group_by(item.c.job_id, item.c.status)):
        counts[job_id][status] = n
    for row in connection.execute(select(job).where(job.c.id.in_(ids))).all():
        left = counts[row.id].get("pending", 0)
        labelled = row.last_label_at is not None and not left
        settles_at = row.last_label_at + settle_s if labelled else None
        status = decide_job(
            row.status, counts[row.id], started=_started(row), settles_at=settles_at, now=now
        )
        over = status in TERMINAL
        connection.execute(
            update(job).where(job.c.id == row.id),
            {
                "rev": row.rev + 1,
                "status": status,
                "n_done": row.n_items - left,
                "settles_at": None if over else settles_at,
                "finished_at": (row.finished_at or now) if over else None,
            },
        )


def _started(row: Row[Any]) -> bool:
    return row.status == "running" or row.last_label_at is not None


def start(connection: Connection, ids: Iterable[str]) -> None:
    """Mark queued jobs as running: a first item of theirs was claimed."""
    begun = job.c.id.in_(sorted(set(ids))) & (job.c.status == "queued")
    lock_jobs(connection, connection.execute(select(job.c.id).where(begun)).scalars())
    values = {"status": advance("queued", "running"), "rev": job.c.rev + 1}
    connection.execute(update(job).where(begun).values(values))


def note(
    connection: Connection,
    kind: str,
    actor: str,
    now: float,
    *,
    job_id: str | None = None,
    assignment_id: int | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Append to the log of what people and requesters did."""
    row = {
        "at": now,
        "kind": kind,
        "actor": actor,
        "job_id": job_id,
        "assignment_id": assignment_id,
        "data": data,
    }
    connection.execute(event.insert(), [row])


def answer(
    item_id: int,
    status: ItemStatus,
    *,
    value: float | None = None,
    detail: Json | None = None,
    error: tuple[ItemErrorCode, str] | None = None,
) -> dict[str, Any]:
    """How one item ends, as a row for ``write_items``."""
    code, message = error or (None, None)
    return {
        "key": item_id,
        "status": status,
        "value": value,
        "detail": detail,
        "error_code": code,
        # PostgreSQL keeps no NUL in text, and a scorer's own message may hold anything.
        "error_message": message and message.replace("\0", "\ufffd"),
    }


def write_items(connection: Connection, answers: Sequence[dict[str, Any]]) -> None:
    """Write down how items ended; nobody holds a lease on them any more."""
    if not answers:
        return
    fields = ("status", "value", "detail", "error_code", "error_message")
    statement = update(item).where(item.c.id == bindparam("key"))
    statement = statement.values({name: bindparam(name) for name in fields} | {"leased": 0})
    connection.execute(statement, list(answers))
