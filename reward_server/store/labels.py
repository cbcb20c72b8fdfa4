"""Labels: voting and undoing.

An item never gets more votes than it needs, and a label is written once however often it is sent:
the tables' constraints hold this, these functions only ask nicely first.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, select, update

from reward_server.queue import Tally, accepts_label, decide_item, votes_needed
from reward_server.store.claims import HumanLease, human_leases
from reward_server.store.leases import grant
from reward_server.store.locks import lock_items, lock_jobs, lock_name
from reward_server.store.settling import answer, note, rules_of, settle, write_items
from reward_server.store.tables import assignment, item, job
from shared.schema import TERMINAL, ErrorCode, Label
from shared.schema_labels import SubmitResult, SubmitRow

Outcome = Literal["counted", "replayed", "extra", "refused"]


class UndoRefused(Exception):
    """A label cannot be retracted (any more); ``code`` is the wire's error code."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code: ErrorCode = code
        super().__init__(message)


def submit(
    connection: Connection, worker: str, rows: Sequence[SubmitRow], now: float, settle_s: float
) -> tuple[list[SubmitResult], list[str]]:
    """Write labels down; returns an answer per row and the jobs that changed."""
    lock_name(connection, f"worker:{worker}")
    keys = [key for one in rows if (key := _number(one.assignment)) is not None]
    ids = select(assignment.c.item_id).where(assignment.c.id.in_(keys))
    items = lock_items(connection, connection.execute(ids).scalars())
    of = select(item.c.job_id).where(item.c.id.in_(items)).distinct()
    lock_jobs(connection, connection.execute(of).scalars())
    results: list[SubmitResult] = []
    changed: set[str] = set()
    for row in rows:
        result, job_id = _submit_one(connection, worker, row, now)
        results.append(result)
        if job_id is not None:
            changed.add(job_id)
    settle(connection, changed, now, settle_s)
    return results, sorted(changed)


def _submit_one(
    connection: Connection, worker: str, row: SubmitRow, now: float
) -> tuple[SubmitResult, str | None]:
    known = (assignment.c.worker == worker) & (assignment.c.client_label_id == row.client_label_id)
    before = connection.execute(select(assignment).where(known)).first()
    if before is not None:
        return _repeated(row, before), None
    lease = _find(connection, row.assignment)
    if (
        lease is None
        or lease.worker != worker
        or not secrets.compare_digest(lease.token, row.token)
    ):
        return _result(row, "refused", "this is no lease of yours; claim again"), None
    if lease.label is not None:
        return _result(row, "refused", f"labelled already: {lease.label!r}"), None
    free = lease.need - lease.done - lease.leased
    rival = lease.state != "leased" and _holds(connection, worker, lease.item_id)
    pending = lease.status == "pending" or lease.kind == "gold"
    if not accepts_label(lease.state, row.label, pending=pending, free=free, rival=rival):
        _write_label(connection, lease, row, "extra", now)
        return _result(row, "extra", "kept but not counted: the slot was gone"), None
    _write_label(
        connection, lease, row, "done" if row.label in ("like", "dislike") else "skipped", now
    )
    _count(connection, lease, row.label, now)
    return _result(row, "counted"), None if lease.kind == "gold" else lease.job_id


def _find(connection: Connection, assignment_id: str) -> Row[Any] | None:
    query = _with_item().where(assignment.c.id == _number(assignment_id))
    return connection.execute(query).first()


def _number(assignment_id: str) -> int | None:
    """Key of an assignment; None for a text that cannot be one."""
    fits = assignment_id.isascii() and assignment_id.isdecimal() and len(assignment_id) < 18
    return int(assignment_id) if fits else None


def _with_item() -> Select[Any]:
    mine = (item.c.job_id, item.c.status, item.c.need, item.c.done, item.c.leased)
    tally = (item.c.likes, item.c.dislikes, item.c.skips)
    rules = (job.c.votes, job.c.min_votes, job.c.quorum, job.c.max_skips, job.c.max_votes)
    return (
        select(
            assignment,
            *mine,
            *tally,
            *rules,
            job.c.min_agreement,
            job.c.status.label("job_status"),
            job.c.acked_at,
        )
        .join(item, item.c.id == assignment.c.item_id)
        .join(job, job.c.id == item.c.job_id)
    )


def _holds(connection: Connection, worker: str, item_id: int) -> bool:
    live = assignment.c.state.in_(("leased", "done", "skipped"))
    query = select(assignment.c.id).where(
        assignment.c.item_id == item_id, assignment.c.worker == worker, live
    )
    return connection.execute(query).first() is not None


def _repeated(row: SubmitRow, before: Row[Any]) -> SubmitResult:
    if str(before.id) != row.assignment or before.label != row.label:
        return _result(row, "refused", "this client_label_id belongs to another label")
    if before.state == "extra":
        return _result(row, "extra", "kept but not counted: the slot was gone")
    return _result(row, "replayed", "undone since" if before.undone_at is not None else None)


def _result(row: SubmitRow, outcome: Outcome, message: str | None = None) -> SubmitResult:
    return SubmitResult(
        assignment=row.assignment,
        client_label_id=row.client_label_id,
        status=200 if outcome in ("counted", "replayed") else 409,
        outcome=outcome,
        message=message,
    )


def _write_label(
    connection: Connection, lease: Row[Any], row: SubmitRow, state: str, now: float
) -> None:
    values = {
        "state": state,
        "label": row.label,
        "reason": row.reason,
        "rt_ms": row.rt_ms,
        "client_label_id": row.client_label_id,
        "done_at": now,
    }
    connection.execute(update(assignment).where(assignment.c.id == lease.id).values(values))


def _count(connection: Connection, lease: Row[Any], label: Label, now: float) -> None:
    rules = rules_of(lease)
    tally = Tally(lease.likes, lease.dislikes, lease.skips).add(label)
    values = {
        "need": max(lease.need, votes_needed(rules, tally)),
        "likes": tally.likes,
        "dislikes": tally.dislikes,
        "skips": tally.skips,
        "done": tally.likes + tally.dislikes,
        "leased": lease.leased - (lease.state == "leased"),
    }
    connection.execute(update(item).where(item.c.id == lease.item_id).values(values))
    if lease.kind == "gold":
        return  # its answer is known: votes say something about the voter, and no reward moves
    connection.execute(update(job).where(job.c.id == lease.job_id).values(last_label_at=now))
    end = decide_item(rules, tally)
    if end is None:
        return
    others = (assignment.c.item_id == lease.item_id) & (assignment.c.state == "leased")
    connection.execute(update(assignment).where(others).values(state="revoked"))
    closed = answer(lease.item_id, end.status, value=end.reward, detail=end.detail, error=end.error)
    write_items(connection, [closed])


def undo(
    connection: Connection,
    worker: str,
    client_label_id: str | None,
    now: float,
    lease_s: float,
    settle_s: float,
    page: str | None = None,
) -> tuple[str, Label, HumanLease | None, str]:
    """Retract a label, the latest one by default, and lease its item again if the slot is free.

    Returns:
        The label's client id, the label, the new lease, and the job that changed.

    Raises:
        UndoRefused: there is no such label, or its reward has been handed out.
    """
    lock_name(connection, f"worker:{worker}")
    mine = (assignment.c.worker == worker) & assignment.c.state.in_(("done", "skipped"))
    if client_label_id is not None:
        mine &= assignment.c.client_label_id == client_label_id
    latest = _with_item().where(mine, assignment.c.kind.in_(("human", "gold")))
    query = latest.order_by(assignment.c.done_at.desc(), assignment.c.id.desc()).limit(1)
    lease = connection.execute(query).first()
    if lease is None:
        raise UndoRefused("nothing_to_undo", f"no label {client_label_id or ''} of yours to undo")
    lock_items(connection, [lease.item_id])
    lock_jobs(connection, [lease.job_id])
    lease = connection.execute(query).one()
    if lease.acked_at is not None or lease.job_status in TERMINAL:
        raise UndoRefused("already_used", "too late to undo: this reward has been handed out")
    tally = Tally(lease.likes, lease.dislikes, lease.skips).add(lease.label, -1)
    free = lease.need - tally.likes - tally.dislikes - lease.leased > 0
    retract = update(assignment).where(assignment.c.id == lease.id)
    connection.execute(retract.values(state="revoked", undone_at=now))
    if lease.kind == "human":
        write_items(connection, [answer(lease.item_id, "pending")])
    values = {
        "likes": tally.likes,
        "dislikes": tally.dislikes,
        "skips": tally.skips,
        "done": tally.likes + tally.dislikes,
        "leased": lease.leased + free,
    }
    connection.execute(update(item).where(item.c.id == lease.item_id).values(values))
    token = secrets.token_urlsafe(12)
    if free:
        grant(connection, {lease.item_id: token}, worker, lease.kind, now, lease_s, page)
    note(connection, "undo", worker, now, job_id=lease.job_id, assignment_id=lease.id)
    if lease.kind == "human":
        settle(connection, [lease.job_id], now, settle_s)
    again = human_leases(connection, [token]) if free else []
    return lease.client_label_id, lease.label, again[0] if again else None, lease.job_id
