"""Labels: voting and undoing.

An item never gets more votes than it needs, and a label is written once however often it is sent:
the tables' constraints enforce this; checks here give better errors.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, select, update

from reward_server.domain.ballot import Ballot, Lease, Voted
from reward_server.domain.jobs import LIVE, Tally
from reward_server.store.claims import HumanLease, human_leases
from reward_server.store.leases import grant
from reward_server.store.locks import lock_items, lock_jobs, lock_name
from reward_server.store.settling import END, answer, note, rules_of, settle, write_items
from reward_server.store.tables import assignment, item, job
from shared.schema import TERMINAL, ErrorCode, Label
from shared.schema.labels import SubmitResult, SubmitRow

_NAMED: Final = assignment.c.id.in_(bindparam("keys"))
_MINE: Final = assignment.c.worker == bindparam("annotator")
_SENT: Final = _MINE & assignment.c.client_label_id.in_(bindparam("labels"))
_HELD: Final = _MINE & assignment.c.item_id.in_(bindparam("items")) & assignment.c.state.in_(LIVE)
_ITEMS: Final = select(assignment.c.item_id).where(_NAMED)
_JOBS: Final = select(item.c.job_id).where(item.c.id.in_(bindparam("items"))).distinct()
_LEASES: Final = tuple(select(assignment).where(which) for which in (_NAMED, _SENT, _HELD))
"""Three questions and not one: each is answered by an index of its own."""
_VOTED: Final = (
    select(item, job.c.votes, job.c.min_votes, job.c.quorum, job.c.max_skips)
    .add_columns(job.c.max_votes, job.c.min_agreement)
    .join(job, job.c.id == item.c.job_id)
    .where(item.c.id.in_(bindparam("items")))
)
_LABELLED: Final = ("state", "label", "reason", "rt_ms", "client_label_id")
_LABEL: Final = (
    update(assignment)
    .where(assignment.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in _LABELLED} | {"done_at": bindparam("now")})
)
_LAST_LABEL: Final = (
    update(job).where(job.c.id.in_(bindparam("jobs"))).values(last_label_at=bindparam("now"))
)
_REVOKE: Final = (
    update(assignment)
    .where(assignment.c.item_id.in_(bindparam("items")), assignment.c.state == "leased")
    .values(state="revoked")
)
_TALLIES: Final[dict[str, Any]] = {
    name: bindparam(name) for name in ("need", "likes", "dislikes", "skips", "done")
}
_TALLY: Final = (
    update(item)
    .where(item.c.id == bindparam("key"))
    .values(_TALLIES | {"leased": bindparam("leased")})
)
_CLOSE: Final = END.values(_TALLIES)


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
    ballot = _open(connection, worker, rows)
    results = [ballot.cast(row) for row in rows]
    _write_labels(connection, ballot, now)
    _write_votes(connection, ballot.counted.values(), now)
    changed = sorted({one.job for one in ballot.counted.values() if one.kind != "gold"})
    settle(connection, changed, now, settle_s)
    return results, changed


def _open(connection: Connection, worker: str, rows: Sequence[SubmitRow]) -> Ballot:
    """Hold the items that ``rows`` name, and read all that counting them depends on."""
    keys = [key for row in rows if (key := _number(row.assignment)) is not None]
    items = lock_items(connection, connection.execute(_ITEMS, {"keys": keys}).scalars())
    lock_jobs(connection, connection.execute(_JOBS, {"items": items}).scalars())
    labels = [row.client_label_id for row in rows]
    asked = {"keys": keys, "annotator": worker, "labels": labels, "items": items}
    leases = {one.id: one for query in _LEASES for one in _leases(connection, query, asked)}
    return Ballot(worker, leases.values(), _voted(connection, items))


def _number(assignment_id: str) -> int | None:
    """Key of an assignment; None for a text that cannot be one."""
    fits = assignment_id.isascii() and assignment_id.isdecimal() and len(assignment_id) < 18
    return int(assignment_id) if fits else None


def _leases(connection: Connection, query: Select[Any], asked: dict[str, Any]) -> list[Lease]:
    return [
        Lease(
            row.id,
            row.item_id,
            row.worker,
            row.token,
            row.state,
            row.label,
            row.client_label_id,
            row.undone_at is not None,
        )
        for row in connection.execute(query, asked)
    ]


def _voted(connection: Connection, ids: Collection[int]) -> list[Voted]:
    return [
        Voted(
            row.id,
            row.job_id,
            row.kind,
            row.status,
            row.need,
            row.leased,
            Tally(row.likes, row.dislikes, row.skips),
            rules_of(row),
        )
        for row in connection.execute(_VOTED, {"items": list(ids)})
    ]


def _write_labels(connection: Connection, ballot: Ballot, now: float) -> None:
    if not ballot.labelled:
        return
    labels = [
        {
            "key": lease.id,
            "now": now,
            "state": lease.state,
            "label": row.label,
            "reason": row.reason,
            "rt_ms": row.rt_ms,
            "client_label_id": row.client_label_id,
        }
        for lease, row in ballot.labelled
    ]
    connection.execute(_LABEL, labels)


def _write_votes(connection: Connection, counted: Collection[Voted], now: float) -> None:
    still_open = [
        _tally(one) | {"key": one.id, "leased": one.leased} for one in counted if one.end is None
    ]
    if still_open:
        connection.execute(_TALLY, still_open)
    asked = sorted({one.job for one in counted if one.kind != "gold"})
    if asked:
        connection.execute(_LAST_LABEL, {"jobs": asked, "now": now})
    ended = [(one, one.end) for one in counted if one.end is not None]
    if not ended:
        return
    connection.execute(_REVOKE, {"items": [one.id for one, _ in ended]})
    closed = [
        answer(one.id, end.status, value=end.reward, detail=end.detail, error=end.error)
        | _tally(one)
        for one, end in ended
    ]
    connection.execute(_CLOSE, closed)


def _tally(one: Voted) -> dict[str, int]:
    return {
        "need": one.need,
        "likes": one.tally.likes,
        "dislikes": one.tally.dislikes,
        "skips": one.tally.skips,
        "done": one.tally.likes + one.tally.dislikes,
    }


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
    query = _latest(worker, client_label_id)
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


def _latest(worker: str, client_label_id: str | None) -> Select[Any]:
    """The annotator's last label that counts, or the one named, with its item and job."""
    mine = (assignment.c.worker == worker) & assignment.c.state.in_(("done", "skipped"))
    if client_label_id is not None:
        mine &= assignment.c.client_label_id == client_label_id
    votes = (item.c.likes, item.c.dislikes, item.c.skips)
    return (
        select(assignment, item.c.job_id, item.c.need, item.c.leased, *votes)
        .add_columns(job.c.status.label("job_status"), job.c.acked_at)
        .join(item, item.c.id == assignment.c.item_id)
        .join(job, job.c.id == item.c.job_id)
        .where(mine, assignment.c.kind.in_(("human", "gold")))
        .order_by(assignment.c.done_at.desc(), assignment.c.id.desc())
        .limit(1)
    )
