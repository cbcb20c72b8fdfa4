"""Leases on machine items, and the sweep that keeps every lease, deadline and settlement honest.

Machine work is executed at least once and recorded once: only the live token may record. An item is
given up after ``MAX_ATTEMPTS`` claims; an item that was being scored when a worker died is retried
alone, so that it cannot take others down with it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, bindparam, exists, or_, select, update

from reward_server.domain.jobs import MAX_ATTEMPTS, ItemKind, Rules, Tally, decide_item
from reward_server.domain.outcomes import Outcome, Scored
from reward_server.store.locks import lock_items, try_lock_name
from reward_server.store.settling import answer, settle, start, write_items
from reward_server.store.tables import assignment, item, job
from shared.schema import Json


@dataclass(frozen=True)
class MachineLease:
    """One item leased to a scorer process, with what it needs to score it."""

    assignment: int
    token: str
    item: int
    job: str
    reward: str
    prompt: str
    sha256: str
    target: Json | None
    options: Json | None


_FREE: Final = (
    (item.c.kind == "machine")
    & (item.c.status == "pending")
    & (item.c.leased == 0)
    & (item.c.available_at <= bindparam("now"))
    & (item.c.deadline_at > bindparam("now"))
)
_ANY_FREE: Final = select(exists().where(_FREE))
_ORDER: Final = (item.c.priority.desc(), item.c.deadline_at, item.c.id)
_HEAD: Final = (
    select(item.c.id, item.c.reward, item.c.attempts)
    .where(_FREE, item.c.reward.in_(bindparam("rewards")))
    .order_by(*_ORDER)
    .limit(1)
    .with_for_update(key_share=True, skip_locked=True)
    .cte("head")
)
_LIKE_HEAD: Final = (
    (item.c.attempts == 0) & (_HEAD.c.attempts == 0) & (item.c.reward == _HEAD.c.reward)
)
_FIRST_FREE: Final = (
    select(item, job.c.options)
    .join(_HEAD, (item.c.id == _HEAD.c.id) | _LIKE_HEAD)
    .join(job, job.c.id == item.c.job_id)
    .where(_FREE)
    .order_by(*_ORDER)
    .limit(bindparam("most"))
    .with_for_update(of=item, key_share=True, skip_locked=True)
)
_TAKE: Final = (
    update(item)
    .where(item.c.id.in_(bindparam("ids")))
    .values(leased=1, attempts=item.c.attempts + 1)
)
_GRANT: Final = assignment.insert().returning(assignment.c.item_id, assignment.c.id)
_FINISH: Final = (
    update(assignment)
    .where(assignment.c.id.in_(bindparam("ids")), assignment.c.token.in_(bindparam("tokens")))
    .where(assignment.c.state == "leased")
    .values(state="done", done_at=bindparam("now"))
    .returning(assignment.c.id)
)


def machine_work(connection: Connection, now: float) -> bool:
    """Whether a machine item waits to be claimed; only reads."""
    return bool(connection.execute(_ANY_FREE, {"now": now}).scalar_one())


def claim_machine(
    connection: Connection,
    worker: str,
    rewards: Sequence[str],
    limit: int,
    now: float,
    lease_s: float,
    share: int = 1,
) -> tuple[list[MachineLease], bool]:
    """Lease up to ``limit`` items of one reward to a scorer process; counts the attempt.

    It looks two such batches ahead and takes one part in ``share`` of what it finds, so that others
    need not stand by. Returns the leases, and whether items are left.
    """
    wanted = {"rewards": list(rewards), "most": 2 * limit, "now": now}
    rows = connection.execute(_FIRST_FREE, wanted).all()
    ours = rows[: min(limit, math.ceil(len(rows) / share))]
    leases = _lease(connection, ours, worker, now, lease_s) if ours else []
    return leases, len(ours) < len(rows)


def _lease(
    connection: Connection, rows: Sequence[Row[Any]], worker: str, now: float, lease_s: float
) -> list[MachineLease]:
    tokens = {row.id: secrets.token_urlsafe(12) for row in rows}
    keys = grant(connection, tokens, worker, "machine", now, lease_s)
    connection.execute(_TAKE, {"ids": list(tokens)})
    start(connection, {row.job_id for row in rows})
    return [
        MachineLease(
            keys[row.id],
            tokens[row.id],
            row.id,
            row.job_id,
            row.reward,
            row.prompt,
            row.sha256,
            row.target,
            row.options,
        )
        for row in rows
    ]


def grant(
    connection: Connection,
    tokens: Mapping[int, str],
    worker: str,
    kind: ItemKind,
    now: float,
    lease_s: float,
    page: str | None = None,
) -> dict[int, int]:
    """Write leases for the items in ``tokens``; returns assignment ids by item id."""
    rows = [
        {
            "item_id": item_id,
            "worker": worker,
            "kind": kind,
            "state": "leased",
            "token": token,
            "lease_s": lease_s,
            "lease_until": now + lease_s,
            "created_at": now,
            "page": page,
        }
        for item_id, token in tokens.items()
    ]
    return {row.item_id: row.id for row in connection.execute(_GRANT, rows)}


def finish_machine(
    connection: Connection, results: Sequence[tuple[MachineLease, Outcome]], now: float
) -> list[str]:
    """Record outcomes of leases that are still live; returns the jobs that changed.

    An outcome whose lease has run out is dropped: another attempt answers the item.
    """
    lock_items(connection, [lease.item for lease, _ in results])
    held = {
        "ids": [lease.assignment for lease, _ in results],
        "tokens": [lease.token for lease, _ in results],
    }
    ours = set(connection.execute(_FINISH, held | {"now": now}).scalars())
    live = [(lease, outcome) for lease, outcome in results if lease.assignment in ours]
    write_items(
        connection, [_answer(lease.item, outcome) for lease, outcome in live], by_machine=True
    )
    jobs = sorted({lease.job for lease, _ in live})
    settle(connection, jobs, now)
    return jobs


def _answer(item_id: int, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Scored):
        return answer(item_id, "ok", value=outcome.reward, detail=outcome.detail)
    return answer(item_id, "error", error=(outcome.code, outcome.message))


def _expire(connection: Connection, which: ColumnElement[bool], *, wait: bool) -> set[str]:
    """Take back the live leases that match ``which``; returns the jobs with items that ended.

    Machine items that have used up their attempts end as errors, all others wait again. Without
    ``wait`` the leases somebody else is changing right now are left to the next call.
    """
    live = (assignment.c.state == "leased") & which
    held = connection.execute(select(assignment.c.item_id).where(live)).scalars().all()
    items = lock_items(connection, held, wait=wait)
    rows = connection.execute(
        select(
            assignment.c.id, item.c.id.label("item_id"), item.c.kind, item.c.attempts, item.c.job_id
        )
        .join(item, item.c.id == assignment.c.item_id)
        .where(live, item.c.id.in_(items))
    ).all()
    gone = assignment.c.id.in_([row.id for row in rows])
    connection.execute(update(assignment).where(gone).values(state="expired"))
    for row in rows:
        connection.execute(
            update(item).where(item.c.id == row.item_id).values(leased=item.c.leased - 1)
        )
    lost = [row for row in rows if row.kind == "machine" and row.attempts >= MAX_ATTEMPTS]
    why = f"the scorer died or hung {MAX_ATTEMPTS} times on this item"
    write_items(
        connection, [answer(row.item_id, "error", error=("scorer_crashed", why)) for row in lost]
    )
    return {row.job_id for row in lost}


def workers(connection: Connection) -> list[str]:
    """Scorer processes that hold leases."""
    query = select(assignment.c.worker).where(
        assignment.c.state == "leased", assignment.c.kind == "machine"
    )
    return list(connection.execute(query.distinct()).scalars())


def release_worker(connection: Connection, worker: str, now: float) -> list[str]:
    """Take back everything a dead scorer process held; returns the jobs that changed."""
    jobs = _expire(connection, assignment.c.worker == worker, wait=True)
    settle(connection, jobs, now)
    return sorted(jobs)


def due(connection: Connection, now: float) -> bool:
    """Whether ``sweep`` would find anything to do; only reads."""
    late = (assignment.c.state == "leased") & (assignment.c.lease_until <= now)
    overdue = (item.c.status == "pending") & (item.c.deadline_at <= now)
    settled = job.c.settles_at.is_not(None) & (job.c.settles_at <= now)
    found = select(or_(exists().where(late), exists().where(overdue), exists().where(settled)))
    return bool(connection.execute(found).scalar_one())


def sweep(connection: Connection, now: float, settle_s: float) -> list[str]:
    """Expire leases, close items past their deadline, end settled jobs; returns changed jobs.

    Of several servers on one database one sweeps at a time, the others find nothing to do.
    """
    if not try_lock_name(connection, "sweep"):
        return []
    changed = _expire(connection, assignment.c.lease_until <= now, wait=False)
    changed |= _close_overdue(connection, now)
    settled = select(job.c.id).where(job.c.settles_at.is_not(None), job.c.settles_at <= now)
    changed.update(connection.execute(settled).scalars())
    settle(connection, changed, now, settle_s)
    return sorted(changed)


def _close_overdue(connection: Connection, now: float) -> set[str]:
    overdue = (item.c.status == "pending") & (item.c.deadline_at <= now)
    found = connection.execute(select(item.c.id).where(overdue).limit(1000)).scalars().all()
    rows = connection.execute(
        select(item, job.c.min_votes, job.c.votes)
        .join(job, job.c.id == item.c.job_id)
        .where(overdue, item.c.id.in_(lock_items(connection, found, wait=False)))
    ).all()
    held = assignment.c.item_id.in_([row.id for row in rows]) & (assignment.c.state == "leased")
    connection.execute(update(assignment).where(held).values(state="revoked"))
    write_items(connection, [_overdue(row) for row in rows])
    return {row.job_id for row in rows}


def _overdue(row: Row[Any]) -> dict[str, Any]:
    if row.kind == "machine":
        return answer(row.id, "incomplete", error=("deadline", "not scored before the deadline"))
    rules = Rules(votes=row.votes, min_votes=row.min_votes)
    end = decide_item(rules, Tally(row.likes, row.dislikes, row.skips), deadline_passed=True)
    assert end is not None
    return answer(row.id, end.status, value=end.reward, detail=end.detail, error=end.error)
