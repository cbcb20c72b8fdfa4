"""People in the queue: claiming items, voting, undoing, and what can be said about it afterwards.

An item never gets more votes than it needs, nobody sees one item twice, and a label is written once
however often it is sent: the tables' constraints hold this, these functions only ask nicely first.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, exists, select, update

from reward_server.queue import Rules, Tally, accepts_label, decide_item
from reward_server.store.leases import grant
from reward_server.store.settling import answer, note, settle, start, write_items
from reward_server.store.tables import assignment, blob, item, job
from shared.schema import TERMINAL, ErrorCode, Label
from shared.schema_labels import LeaseRef, SubmitResult, SubmitRow

Outcome = Literal["counted", "replayed", "extra", "refused"]


@dataclass(frozen=True)
class HumanLease:
    """One image leased to one person; all a person may know about it."""

    assignment: int
    token: str
    prompt: str
    sha256: str
    width: int
    height: int
    instruction: str | None
    lease_s: float


class UndoRefused(Exception):
    """A label cannot be retracted (any more); ``code`` is the wire's error code."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code: ErrorCode = code
        super().__init__(message)


def claim(
    connection: Connection, worker: str, n: int, now: float, lease_s: float, *, resume: bool = False
) -> list[HumanLease]:
    """Lease up to ``n`` items to an annotator, own live leases first if ``resume``.

    Order: priority, deadline, the group closest to completion, the older job, then random.
    """
    mine = _held(connection, worker, n, now) if resume else []
    if mine:
        extend(
            connection, worker, [LeaseRef(assignment=str(r.id), token=r.token) for r in mine], now
        )
    query = (
        select(item.c.id, item.c.job_id)
        .join(job, job.c.id == item.c.job_id)
        .where(_open_to(worker, now))
        .order_by(
            item.c.priority.desc(),
            item.c.deadline_at,
            (job.c.n_done * 1.0 / job.c.n_items).desc(),
            job.c.created_at,
            item.c.shuffle,
        )
        .limit(n - len(mine))
        .with_for_update(of=item, skip_locked=True)
    )
    rows = connection.execute(query).all() if len(mine) < n else []
    tokens = {row.id: secrets.token_urlsafe(12) for row in rows}
    if tokens:
        grant(connection, tokens, worker, "human", now, lease_s)
        taken = update(item).where(item.c.id.in_(list(tokens)))
        connection.execute(taken.values(leased=item.c.leased + 1))
        start(connection, {row.job_id for row in rows})
    order = [row.token for row in mine] + list(tokens.values())
    return _leases(connection, order)


def _open_to(worker: str, now: float) -> ColumnElement[bool]:
    seen = exists().where(
        assignment.c.item_id == item.c.id,
        assignment.c.worker == worker,
        assignment.c.state.in_(("leased", "done", "skipped")),
    )
    waiting = (item.c.status == "pending") & (item.c.kind == "human")
    free = item.c.done + item.c.leased < item.c.need
    return waiting & free & (item.c.deadline_at > now) & ~seen


def _held(connection: Connection, worker: str, n: int, now: float) -> list[Row[Any]]:
    live = (
        (assignment.c.worker == worker)
        & (assignment.c.state == "leased")
        & (assignment.c.kind == "human")
        & (assignment.c.lease_until > now)
    )
    query = select(assignment.c.id, assignment.c.token).where(live).order_by(assignment.c.id)
    return list(connection.execute(query.limit(n)))


def _leases(connection: Connection, tokens: Sequence[str]) -> list[HumanLease]:
    query = (
        select(assignment, item.c.prompt, item.c.sha256, blob, job.c.instruction)
        .join(item, item.c.id == assignment.c.item_id)
        .join(blob, blob.c.sha256 == item.c.sha256)
        .join(job, job.c.id == item.c.job_id)
        .where(assignment.c.token.in_(tokens))
    )
    found = {
        row.token: HumanLease(
            row.id,
            row.token,
            row.prompt,
            row.sha256,
            row.width,
            row.height,
            row.instruction,
            row.lease_s,
        )
        for row in connection.execute(query)
    }
    return [found[token] for token in tokens if token in found]


def typical_seconds(connection: Connection, worker: str, default: float = 10.0) -> float:
    """95th percentile of this annotator's last 100 reaction times, in seconds."""
    query = (
        select(assignment.c.rt_ms)
        .where(assignment.c.worker == worker, assignment.c.rt_ms.is_not(None))
        .order_by(assignment.c.done_at.desc())
        .limit(100)
    )
    times = sorted(connection.execute(query).scalars())
    if len(times) < 10:
        return default
    return float(times[int(0.95 * (len(times) - 1))]) / 1000.0


def submit(
    connection: Connection, worker: str, rows: Sequence[SubmitRow], now: float, settle_s: float
) -> tuple[list[SubmitResult], list[str]]:
    """Write labels down; returns an answer per row and the jobs that changed."""
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
    pending = lease.status == "pending"
    if not accepts_label(lease.state, row.label, pending=pending, free=free, rival=rival):
        _write_label(connection, lease, row, "extra", now)
        return _result(row, "extra", "kept but not counted: the slot was gone"), None
    _write_label(
        connection, lease, row, "done" if row.label in ("like", "dislike") else "skipped", now
    )
    _count(connection, lease, row.label, now)
    return _result(row, "counted"), lease.job_id


def _find(connection: Connection, assignment_id: str) -> Row[Any] | None:
    if not (assignment_id.isascii() and assignment_id.isdecimal() and len(assignment_id) < 18):
        return None
    query = _with_item().where(assignment.c.id == int(assignment_id))
    return connection.execute(query).first()


def _with_item() -> Select[Any]:
    mine = (item.c.job_id, item.c.status, item.c.need, item.c.done, item.c.leased)
    tally = (item.c.likes, item.c.dislikes, item.c.skips)
    rules = (job.c.votes, job.c.min_votes, job.c.quorum, job.c.max_skips)
    return (
        select(assignment, *mine, *tally, *rules, job.c.status.label("job_status"), job.c.acked_at)
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
        "rt_ms": row.rt_ms,
        "client_label_id": row.client_label_id,
        "done_at": now,
    }
    connection.execute(update(assignment).where(assignment.c.id == lease.id).values(values))


def _count(connection: Connection, lease: Row[Any], label: Label, now: float) -> None:
    tally = Tally(lease.likes, lease.dislikes, lease.skips).add(label)
    values = {
        "likes": tally.likes,
        "dislikes": tally.dislikes,
        "skips": tally.skips,
        "done": tally.likes + tally.dislikes,
        "leased": lease.leased - (lease.state == "leased"),
    }
    connection.execute(update(item).where(item.c.id == lease.item_id).values(values))
    connection.execute(update(job).where(job.c.id == lease.job_id).values(last_label_at=now))
    rules = Rules(lease.votes, lease.min_votes, lease.quorum, lease.max_skips)
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
) -> tuple[str, Label, HumanLease | None, str]:
    """Retract a label, the latest one by default, and lease its item again if the slot is free.

    Returns:
        The label's client id, the label, the new lease, and the job that changed.

    Raises:
        UndoRefused: there is no such label, or its reward has been handed out.
    """
    mine = (assignment.c.worker == worker) & assignment.c.state.in_(("done", "skipped"))
    if client_label_id is not None:
        mine &= assignment.c.client_label_id == client_label_id
    latest = _with_item().where(mine, assignment.c.kind == "human")
    query = latest.order_by(assignment.c.done_at.desc(), assignment.c.id.desc()).limit(1)
    lease = connection.execute(query).first()
    if lease is None:
        raise UndoRefused("nothing_to_undo", f"no label {client_label_id or ''} of yours to undo")
    if lease.acked_at is not None or lease.job_status in TERMINAL:
        raise UndoRefused("already_used", "too late to undo: this reward has been handed out")
    tally = Tally(lease.likes, lease.dislikes, lease.skips).add(lease.label, -1)
    free = lease.need - tally.likes - tally.dislikes - lease.leased > 0
    retract = update(assignment).where(assignment.c.id == lease.id)
    connection.execute(retract.values(state="revoked", undone_at=now))
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
        grant(connection, {lease.item_id: token}, worker, "human", now, lease_s)
    note(connection, "undo", worker, now, job_id=lease.job_id, assignment_id=lease.id)
    settle(connection, [lease.job_id], now, settle_s)
    again = _leases(connection, [token]) if free else []
    return lease.client_label_id, lease.label, again[0] if again else None, lease.job_id


def extend(
    connection: Connection, worker: str, leases: Iterable[LeaseRef], now: float
) -> list[str]:
    """Heartbeat: extend those leases that are live, by the length they were given; returns them."""
    live = _live(connection, worker, leases)
    for row in live:
        later = update(assignment).where(assignment.c.id == row.id)
        connection.execute(later.values(lease_until=now + row.lease_s))
    return [str(row.id) for row in live]


def release(connection: Connection, worker: str, leases: Iterable[LeaseRef]) -> list[str]:
    """Give leases back, so that others get the items at once; returns those that were live."""
    live = _live(connection, worker, leases)
    given = assignment.c.id.in_([row.id for row in live])
    connection.execute(update(assignment).where(given).values(state="revoked"))
    for row in live:
        back = update(item).where(item.c.id == row.item_id)
        connection.execute(back.values(leased=item.c.leased - 1))
    return [str(row.id) for row in live]


def _live(connection: Connection, worker: str, leases: Iterable[LeaseRef]) -> list[Row[Any]]:
    tokens = {lease.token: lease.assignment for lease in leases}
    held = (assignment.c.worker == worker) & (assignment.c.state == "leased")
    rows = connection.execute(select(assignment).where(held, assignment.c.token.in_(list(tokens))))
    return [row for row in rows if tokens[row.token] == str(row.id)]
