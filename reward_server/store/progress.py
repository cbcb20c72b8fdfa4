"""What can be said about the queue: for annotators, for requesters, for a run's report.

Only reads. What is shown to annotators carries no run, reward or vote of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, distinct, func, select

from reward_server.domain.jobs import LIVE
from reward_server.store import outbox
from reward_server.store.tables import assignment, item, job, traffic
from shared.schema import Json
from shared.schema.labels import TOO_FAST_MS, LabelStats, QueueView
from shared.schema.ops import RunStats, Traffic

_HUMAN_WAITING = (item.c.status == "pending") & (item.c.kind == "human")
_LABELLED = (assignment.c.kind == "human") & assignment.c.state.in_(("done", "skipped"))
_CLICKED = assignment.c.kind.in_(("human", "gold")) & assignment.c.state.in_(("done", "skipped"))


def queue_view(connection: Connection, worker: str, now: float) -> QueueView:
    """What is left for one annotator."""
    mine = assignment.alias("mine")
    live = mine.c.state.in_(LIVE)
    theirs = item.outerjoin(mine, (mine.c.item_id == item.c.id) & (mine.c.worker == worker) & live)
    alive = _HUMAN_WAITING & (item.c.deadline_at > now)
    unseen = mine.c.id.is_(None)
    free = item.c.done + item.c.leased < item.c.need

    def count(condition: ColumnElement[bool]) -> Any:
        return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

    judged = mine.c.state.in_(("done", "skipped"))
    counts = select(count(unseen & free), count(unseen & ~free), count(judged))
    query = counts.select_from(theirs).where(alive)
    open_, elsewhere, for_others = connection.execute(query).one()
    returning = (
        select(func.min(assignment.c.lease_until))
        .select_from(theirs.join(assignment, assignment.c.item_id == item.c.id))
        .where(alive, unseen, assignment.c.state == "leased")
    )
    back = connection.execute(returning).scalar() if elsewhere else None
    return QueueView(
        open=open_,
        leased_elsewhere=elsewhere,
        next_return_s=None if back is None else max(back - now, 0.0),
        for_others=for_others,
    )


def labels_by(connection: Connection, worker: str, since: float = 0.0) -> int:
    """Labels of one annotator since a time, golds included: a total must not give them away."""
    mine = _CLICKED & (assignment.c.worker == worker) & (assignment.c.done_at >= since)
    return int(connection.execute(select(func.count()).where(mine)).scalar_one())


def leased_by(connection: Connection, worker: str) -> int:
    """Items one annotator holds right now."""
    mine = (assignment.c.worker == worker) & (assignment.c.state == "leased")
    return int(connection.execute(select(func.count()).where(mine)).scalar_one())


def label_stats(connection: Connection, now: float) -> LabelStats:
    """Progress of the human queue as a whole."""
    oldest = select(func.min(job.c.created_at)).join(item, item.c.job_id == job.c.id)
    since = connection.execute(oldest.where(_HUMAN_WAITING)).scalar()
    hour = _LABELLED & (assignment.c.done_at >= now - 3600.0)
    recent, people = connection.execute(
        select(func.count(), func.count(distinct(assignment.c.worker))).where(hour)
    ).one()
    held = (assignment.c.kind == "human") & (assignment.c.state == "leased")
    judged = (item.c.kind == "human") & item.c.status.in_(("ok", "incomplete"))

    def count(condition: Any) -> int:
        return int(connection.execute(select(func.count()).where(condition)).scalar_one())

    return LabelStats(
        waiting=count(_HUMAN_WAITING),
        leased=count(held),
        judged=count(judged),
        labels=count(_LABELLED),
        labels_last_hour=recent,
        annotators_last_hour=people,
        oldest_waiting_s=None if since is None else max(now - since, 0.0),
        open_jobs=count((job.c.kind == "human") & job.c.finished_at.is_(None)),
    )


def export(connection: Connection, run_id: str | None = None) -> Iterator[Json]:
    """Every label ever given, oldest first, also undone ones and those that came too late."""
    query = (
        select(assignment, item.c.given_id, item.c.prompt, item.c.sha256, item.c.position)
        .add_columns(job.c.id.label("job_id"), job.c.run_id, job.c.group_id, job.c.step)
        .join(item, item.c.id == assignment.c.item_id)
        .join(job, job.c.id == item.c.job_id)
        .where(assignment.c.kind == "human", assignment.c.label.is_not(None))
        .order_by(assignment.c.done_at, assignment.c.id)
        .execution_options(yield_per=500)
    )
    if run_id is not None:
        query = query.where(job.c.run_id == run_id)
    for row in connection.execute(query):
        yield {
            "annotator": row.worker,
            "label": row.label,
            "at": row.done_at,
            "rt_ms": row.rt_ms,
            "too_fast": row.rt_ms is not None and row.rt_ms < TOO_FAST_MS,
            "reason": row.reason,
            "counted": row.state in ("done", "skipped"),
            "undone": row.undone_at is not None,
            "job": row.job_id,
            "index": row.position,
            "id": row.given_id,
            "prompt": row.prompt,
            "sha256": row.sha256,
            "run_id": row.run_id,
            "group_id": row.group_id,
            "step": row.step,
        }


def total_traffic(connection: Connection) -> Traffic:
    """All score requests ever accepted."""
    rows = connection.execute(select(traffic)).all()
    return Traffic(
        requests=sum(row.requests for row in rows),
        items=sum(row.items for row in rows),
        bytes=sum(row.bytes for row in rows),
    )


@dataclass(frozen=True)
class QueueFigures:
    """The queue at one moment, by reward: accepted ever, and what waits (items, oldest in s).

    ``leased`` counts live leases by kind.
    """

    accepted: Mapping[str, Traffic]
    waiting: Mapping[str, tuple[int, float]]
    leased: Mapping[str, int]
    webhooks: Mapping[str, tuple[int, float]]


def queue_figures(connection: Connection, now: float) -> QueueFigures:
    """Figures of the whole queue, whichever server accepted what is in it."""
    names = ("requests", "items", "bytes")
    sums = [func.sum(traffic.c[name]).label(name) for name in names]
    accepted = select(traffic.c.reward, *sums).group_by(traffic.c.reward)
    pending = (
        select(item.c.reward, func.count(), func.min(job.c.created_at))
        .join(job, job.c.id == item.c.job_id)
        .where(item.c.status == "pending")
        .group_by(item.c.reward)
    )
    held = select(assignment.c.kind, func.count()).where(assignment.c.state == "leased")
    waiting = connection.execute(pending).all()
    return QueueFigures(
        accepted={
            row.reward: Traffic(**{name: int(getattr(row, name)) for name in names})
            for row in connection.execute(accepted)
        },
        waiting={reward: (n, max(now - since, 0.0)) for reward, n, since in waiting},
        leased={row[0]: row[1] for row in connection.execute(held.group_by(assignment.c.kind))},
        webhooks=outbox.waiting(connection, now),
    )


def run_stats(connection: Connection, run_id: str) -> RunStats | None:
    """What one run has sent, by reward, and how its items ended; None for an unknown run."""
    rows = connection.execute(select(traffic).where(traffic.c.run_id == run_id)).all()
    if not rows:
        return None
    ends = (
        select(item.c.status, func.count())
        .join(job, job.c.id == item.c.job_id)
        .where(job.c.run_id == run_id)
        .group_by(item.c.status)
    )
    return RunStats(
        run_id=run_id,
        requests=sum(row.requests for row in rows),
        items=sum(row.items for row in rows),
        bytes=sum(row.bytes for row in rows),
        by_reward={
            row.reward: Traffic(requests=row.requests, items=row.items, bytes=row.bytes)
            for row in rows
        },
        by_status={row[0]: row[1] for row in connection.execute(ends)},
    )
