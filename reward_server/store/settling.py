"""How changes of items become changes of their jobs, with the ``rev`` that watchers wait for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, func, select, update

from reward_server.domain.jobs import Rules, advance, decide_job
from reward_server.store.locks import holding_jobs, lock_jobs
from reward_server.store.reliability import weigh
from reward_server.store.tables import event, item, job, outbox, webhook
from shared.schema import TERMINAL, Counts, ItemErrorCode, ItemStatus, JobStatus, Json
from shared.webhooks import JobEnded, JobMessage

_OF_ITEMS: Final = (item.c.status, func.count().label("n"), func.sum(item.c.value).label("total"))
_TALLIED: Final = (
    select(job, *(column.label(f"item_{column.name}") for column in _OF_ITEMS))
    .join(item, item.c.job_id == job.c.id)
    .where(job.c.id.in_(bindparam("ids")))
    .group_by(job.c.id, item.c.status)
)
_SETTLE: Final = update(job).where(job.c.id == bindparam("key"))
_QUEUED: Final = job.c.id.in_(bindparam("ids")) & (job.c.status == "queued")
_QUEUED_HELD: Final = holding_jobs(_QUEUED)
_START: Final = (
    update(job).where(_QUEUED).values(status=advance("queued", "running"), rev=job.c.rev + 1)
)
_ENDS: Final = ("status", "value", "detail", "error_code", "error_message")
END: Final = (
    update(item)
    .where(item.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in _ENDS} | {"leased": 0})
)
"""How one item ends, by its ``answer``; nobody holds it any more."""
_SCORED: Final = END.values(done=1)


def settle(connection: Connection, ids: Iterable[str], now: float, settle_s: float = 0.0) -> None:
    """Recompute the state of jobs whose items changed, and let their ``rev`` grow.

    ``settle_s`` after its last label a job answered by people ends, not before.
    """
    ids = sorted(set(ids))
    lock_jobs(connection, ids)
    for row, counts, total in _tallied(connection, ids):
        left = counts.get("pending", 0)
        labelled = row.last_label_at is not None and not left
        settles_at = row.last_label_at + settle_s if labelled else None
        status = decide_job(
            row.status, counts, started=_started(row), settles_at=settles_at, now=now
        )
        ends = status in TERMINAL and row.finished_at is None
        if ends and row.weights == "reliability":
            grown = weigh(connection, row.id)
            if grown is None:
                # The next sweep ends it: its last label was long enough ago.
                status, ends = advance(row.status, "running"), False
            total += grown or 0.0
        over = status in TERMINAL
        if ends:
            announce(connection, row, status, counts.get("ok", 0), now)
        connection.execute(
            _SETTLE,
            {
                "key": row.id,
                "rev": row.rev + 1,
                "status": status,
                "n_done": row.n_items - left,
                "n_ok": counts.get("ok", 0),
                "value_sum": total,
                "settles_at": None if over else settles_at,
                "finished_at": (row.finished_at or now) if over else None,
            },
        )


def announce(connection: Connection, row: Row[Any], status: JobStatus, ok: int, now: float) -> None:
    """Write the message that a job is over, if it named a webhook that is still in use."""
    if row.webhook is None:
        return
    live = (webhook.c.name == row.webhook) & webhook.c.revoked_at.is_(None)
    if connection.execute(select(webhook.c.name).where(live)).first() is None:
        return
    data = JobEnded(
        id=row.id,
        reward=row.reward,
        status=status,
        run_id=row.run_id,
        group_id=row.group_id,
        step=row.step,
        counts=Counts(ok=ok, pending=0, error=row.n_items - ok),
    )
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    message = {
        "id": f"msg_{row.id}",
        "webhook": row.webhook,
        "body": JobMessage(timestamp=moment, data=data).model_dump_json(),
        "attempts": 0,
        "created_at": now,
        "due_at": now,
    }
    connection.execute(outbox.insert(), [message])


def _tallied(
    connection: Connection, ids: Sequence[str]
) -> list[tuple[Row[Any], dict[ItemStatus, int], float]]:
    """Jobs, each with the number of its items by status and the sum of their rewards."""
    found: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(_TALLIED, {"ids": ids}):
        found[row.id].append(row)
    return [
        (
            rows[0],
            {row.item_status: row.item_n for row in rows},
            sum(row.item_total or 0.0 for row in rows),
        )
        for rows in found.values()
    ]


def _started(row: Row[Any]) -> bool:
    return row.status == "running" or row.last_label_at is not None


def rules_of(row: Row[Any]) -> Rules:
    """When the items of a job are closed, from a row with its columns."""
    return Rules(
        row.votes, row.min_votes, row.quorum, row.max_skips, row.max_votes, row.min_agreement
    )


def start(connection: Connection, ids: Iterable[str]) -> None:
    """Mark queued jobs as running: a first item of theirs was claimed."""
    these = sorted(set(ids))
    lock_jobs(connection, these, _QUEUED_HELD)
    connection.execute(_START, {"ids": these})


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


def write_items(
    connection: Connection, answers: Sequence[dict[str, Any]], *, by_machine: bool = False
) -> None:
    """Write down how items ended; nobody holds them any more. A machine's answer is a vote."""
    if answers:
        connection.execute(_SCORED if by_machine else END, list(answers))
