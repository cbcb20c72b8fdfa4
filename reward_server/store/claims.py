"""Leasing items to people: claiming, keeping and giving back.

Nobody sees one item twice and an item is never shown to more people than it needs votes: the
tables' constraints enforce this; checks here give better errors.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, exists, func, select, update

from reward_server.domain.jobs import LIVE
from reward_server.store.leases import grant
from reward_server.store.locks import lock_items, lock_name
from reward_server.store.settling import start
from reward_server.store.sql import insert_new
from reward_server.store.tables import assignment, blob, closed_page, item, job
from shared.schema.labels import LeaseRef

AT_ONCE: Final = 256
"""Items looked at together when somebody asks for the next ones."""

_FREE: Final = (item.c.status == "pending") & (item.c.done + item.c.leased < item.c.need)
_WAITING: Final = (
    select(
        item.c.job_id,
        func.max(item.c.priority).label("priority"),
        func.min(item.c.deadline_at).label("deadline_at"),
        func.count().label("left"),
    )
    .where(item.c.status == "pending", item.c.kind == "human")
    .group_by(item.c.job_id)
    .subquery()
)
_JOBS_IN_ORDER: Final[Select[Any]] = (
    select(job.c.id, _WAITING.c.left)
    .join(_WAITING, _WAITING.c.job_id == job.c.id)
    .order_by(
        _WAITING.c.priority.desc(),
        _WAITING.c.deadline_at,
        (job.c.n_done * 1.0 / job.c.n_items).desc(),
        job.c.created_at,
    )
)
"""Jobs with items people may still judge; all items of a job have its priority and deadline."""
_OPEN: Final[Select[Any]] = select(item.c.id, item.c.job_id, item.c.prompt, item.c.shuffle).where(
    item.c.job_id.in_(bindparam("jobs")),
    _FREE,
    item.c.kind == "human",
    item.c.deadline_at > bindparam("now"),
)
_HAD: Final = select(assignment.c.item_id).where(
    assignment.c.worker == bindparam("worker"),
    assignment.c.item_id.in_(bindparam("ids")),
    assignment.c.state.in_(LIVE),
)
_HOLD: Final = (
    select(item.c.id)
    .where(item.c.id.in_(bindparam("ids")), _FREE)
    .with_for_update(key_share=True, skip_locked=True)
)
_TAKE: Final = update(item).where(item.c.id.in_(bindparam("ids"))).values(leased=item.c.leased + 1)
_LEASES: Final = (
    select(assignment, item.c.prompt, item.c.sha256, blob, job.c.instruction)
    .join(item, item.c.id == assignment.c.item_id)
    .join(blob, blob.c.sha256 == item.c.sha256)
    .join(job, job.c.id == item.c.job_id)
    .where(assignment.c.token.in_(bindparam("tokens")))
)


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


def claim(
    connection: Connection,
    worker: str,
    n: int,
    now: float,
    lease_s: float,
    *,
    resume: bool = False,
    page: str | None = None,
    together: bool = False,
) -> list[HumanLease]:
    """Lease up to ``n`` items to an annotator, own live leases first if ``resume``.

    Order: priority, deadline, the group closest to completion, the older job, then random; with
    ``together`` only images of one job and one prompt. ``page`` is who may give them back at once.
    """
    lock_name(connection, f"worker:{worker}")
    mine = _held(connection, worker, n, now) if resume else []
    if mine:
        extend(
            connection, worker, [LeaseRef(assignment=str(r.id), token=r.token) for r in mine], now
        )
    rows = _next(connection, worker, n - len(mine), now, together=together) if len(mine) < n else []
    tokens = {row.id: secrets.token_urlsafe(12) for row in rows}
    if tokens:
        grant(connection, tokens, worker, "human", now, lease_s, page)
        connection.execute(_TAKE, {"ids": list(tokens)})
        start(connection, {row.job_id for row in rows})
    order = [row.token for row in mine] + list(tokens.values())
    return human_leases(connection, order)


def _next(
    connection: Connection, worker: str, n: int, now: float, *, together: bool
) -> list[Row[Any]]:
    """Up to ``n`` items in the order of ``claim``, held until the end of the transaction."""
    taken: list[Row[Any]] = []
    for jobs in _some_at_once(connection.execute(_JOBS_IN_ORDER).all()):
        rows = _unseen(connection, worker, jobs, now)
        for alike in _by_prompt(rows) if together else [rows]:
            while alike and len(taken) < n:
                missing = n - len(taken)
                taken += _hold(connection, alike[:missing])
                alike = alike[missing:]
            if len(taken) == n or (together and taken):
                return taken
    return taken


def _some_at_once(jobs: Sequence[Row[Any]]) -> Iterator[list[str]]:
    """The jobs in order, so many at once that they have ``AT_ONCE`` items left."""
    some, left = [], 0
    for row in jobs:
        some.append(row.id)
        left += row.left
        if left >= AT_ONCE:
            yield some
            some, left = [], 0
    if some:
        yield some


def _by_prompt(rows: Sequence[Row[Any]]) -> list[list[Row[Any]]]:
    """Rows of one job and one prompt each, in the order of their first rows."""
    found: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in rows:
        found.setdefault((row.job_id, row.prompt), []).append(row)
    return list(found.values())


def _unseen(connection: Connection, worker: str, jobs: Sequence[str], now: float) -> list[Row[Any]]:
    """Open items of ``jobs`` that this annotator has not had, job by job, each in random order.

    Two questions and not one: a database that knows nothing of its tables yet answers the two
    together by reading all that the annotator ever did, once for every item.
    """
    rows = connection.execute(_OPEN, {"jobs": jobs, "now": now}).all()
    ids = [row.id for row in rows]
    seen = set(connection.execute(_HAD, {"worker": worker, "ids": ids}).scalars())
    place = {job_id: number for number, job_id in enumerate(jobs)}
    unseen = (row for row in rows if row.id not in seen)
    return sorted(unseen, key=lambda row: (place[row.job_id], row.shuffle, row.id))


def _hold(connection: Connection, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Those of ``rows`` that nobody else holds, or has filled since they were read."""
    held = set(connection.execute(_HOLD, {"ids": [row.id for row in rows]}).scalars())
    return [row for row in rows if row.id in held]


def _held(connection: Connection, worker: str, n: int, now: float) -> list[Row[Any]]:
    live = (
        (assignment.c.worker == worker)
        & (assignment.c.state == "leased")
        & assignment.c.kind.in_(("human", "gold"))
        & (assignment.c.lease_until > now)
    )
    query = select(assignment.c.id, assignment.c.token).where(live).order_by(assignment.c.id)
    return list(connection.execute(query.limit(n)))


def human_leases(connection: Connection, tokens: Sequence[str]) -> list[HumanLease]:
    """The leases behind ``tokens``, in that order, with what their holder may know."""
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
        for row in connection.execute(_LEASES, {"tokens": list(tokens)})
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


def close_page(
    connection: Connection, worker: str, page: str, keep: Sequence[str], now: float
) -> int:
    """Give back what a page holds and let it claim no more, not even by a claim on its way here.

    ``keep`` are assignments whose label is on its way. Returns how many leases were given back.
    """
    lock_name(connection, f"worker:{worker}")
    closed = {"worker": worker, "page": page, "closed_at": now}
    insert_new(connection, closed_page, [closed])
    held = select(assignment.c.id, assignment.c.token).where(
        assignment.c.worker == worker, assignment.c.page == page, assignment.c.state == "leased"
    )
    rows = [row for row in connection.execute(held) if str(row.id) not in set(keep)]
    refs = [LeaseRef(assignment=str(row.id), token=row.token) for row in rows]
    return len(release(connection, worker, refs))


def is_closed(connection: Connection, worker: str, page: str | None) -> bool:
    """Whether a page has ended: what it claims nobody would see."""
    lock_name(connection, f"worker:{worker}")
    ended = (closed_page.c.worker == worker) & (closed_page.c.page == page)
    return bool(connection.execute(select(exists().where(ended))).scalar_one())


def forget_pages(connection: Connection, before: float) -> None:
    """Forget pages that ended before a time: no claim of theirs is on its way any more."""
    connection.execute(closed_page.delete().where(closed_page.c.closed_at < before))


def _live(connection: Connection, worker: str, leases: Iterable[LeaseRef]) -> list[Row[Any]]:
    lock_name(connection, f"worker:{worker}")
    tokens = {lease.token: lease.assignment for lease in leases}
    mine = (assignment.c.worker == worker) & assignment.c.token.in_(list(tokens))
    held = select(assignment.c.item_id).where(mine, assignment.c.state == "leased")
    lock_items(connection, connection.execute(held).scalars())
    rows = connection.execute(select(assignment).where(mine, assignment.c.state == "leased"))
    return [row for row in rows if tokens[row.token] == str(row.id)]
