"""Runs as their requester watches them: rewards over time, samples, what is awaited. Only reads.

Figures come from the sums that every job carries, so that a run of 100,000 images is a few thousand
rows and stays visible after its results are purged; pictures are looked up for few jobs only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, case, distinct, func, select

from reward_server.domain.agreement import Z95
from reward_server.store.campaigns import PROBE
from reward_server.store.tables import item, job, traffic
from shared.schema.runs import (
    Awaited,
    Curve,
    Point,
    RunList,
    RunSamples,
    RunSummary,
    RunView,
    Shot,
    Strip,
)

POINTS: Final = 120
"""Most points of one curve."""
FEWEST: Final = 12
"""Points of a curve that are worth having without an interval."""
GROUPS_PER_POINT: Final = 4
"""Groups that make an interval."""
STRIPS: Final = 6
"""Most prompts of the samples."""
SHOTS: Final = 9
"""Most pictures of one prompt."""
LOOKED_AT: Final = 4000
"""Latest jobs of a run that are searched for prompts that came again."""
IDLE_S: Final = 300.0

_ITEMS: Final = traffic.c["items"].label("n_items")

Axis = Literal["step", "seconds"]
Source = Literal["probe", "training", "latest"]
T = TypeVar("T")


def listing(connection: Connection, limit: int) -> RunList:
    """Runs that have asked for scores, the latest first."""
    sums = select(traffic.c.run_id, traffic.c.reward, _ITEMS).where(
        traffic.c.run_id != "", ~traffic.c.run_id.endswith(PROBE)
    )
    rewards: defaultdict[str, set[str]] = defaultdict(set)
    items: defaultdict[str, int] = defaultdict(int)
    for row in connection.execute(sums):
        rewards[row.run_id].add(row.reward)
        items[row.run_id] += row.n_items
    last = {one: _last(connection, one) for one in rewards}
    latest = sorted(last, key=lambda one: last[one], reverse=True)[:limit]
    runs = [
        RunSummary(run_id=i, rewards=sorted(rewards[i]), items=items[i], last_at=last[i])
        for i in latest
    ]
    return RunList(runs=runs)


def _last(connection: Connection, run_id: str) -> float:
    query = select(func.max(job.c.created_at)).where(job.c.run_id == run_id)
    return float(connection.execute(query).scalar() or 0.0)


def view(connection: Connection, run_id: str, now: float) -> RunView | None:
    """A run so far; None for an unknown one."""
    found = _span(connection, run_id)
    if found is None:
        return None
    axis, first, last = found
    span = last - first + 1.0  # the last place is in the last part, not alone in one of its own
    probe = f"{run_id}{PROBE}"
    counts = select(func.count(), func.sum(job.c.n_items)).where(job.c.run_id == run_id)
    groups, items = connection.execute(counts).one()
    points = min(max(groups // GROUPS_PER_POINT, FEWEST), POINTS)
    curves = _curves(connection, run_id, axis, first, span / points)
    curves += _curves(connection, probe, axis, first, span / POINTS, probe=True)
    latest = max(_last(connection, run_id), _last(connection, probe))
    return RunView(
        run_id=run_id,
        axis=axis,
        curves=curves,
        awaited=_awaited(connection, (run_id, probe), latest, now),
        items=items,
        groups=groups,
        last_s=max(now - latest, 0.0),
    )


def _span(connection: Connection, run_id: str) -> tuple[Axis, float, float] | None:
    """The axis of a run, and the first and the last place on it."""
    times = (func.min(job.c.created_at), func.max(job.c.created_at))
    query = select(func.min(job.c.step), func.max(job.c.step), *times)
    low, high, first, last = connection.execute(query.where(job.c.run_id == run_id)).one()
    if first is None:
        return None
    if low is not None:
        return "step", float(low), float(high)
    return "seconds", first, last


def _place(axis: Axis) -> ColumnElement[Any]:
    return job.c.step if axis == "step" else job.c.created_at


def _curves(
    connection: Connection,
    run_id: str,
    axis: Axis,
    first: float,
    width: float,
    *,
    probe: bool = False,
) -> list[Curve]:
    """Mean rewards of places ``width`` apart; intervals by groups, which share a prompt."""
    place = _place(axis)
    part = func.floor((place - first) / max(width, 1.0))
    mean = job.c.value_sum / job.c.n_ok
    query = (
        select(
            job.c.reward,
            job.c.kind,
            func.count().label("groups"),
            func.avg(place * 1.0).label("x"),
            func.sum(job.c.n_ok).label("n"),
            func.sum(job.c.value_sum).label("total"),
            func.sum(mean).label("s1"),
            func.sum(mean * mean).label("s2"),
        )
        .where(job.c.run_id == run_id, job.c.n_ok > 0, place.is_not(None))
        .group_by(job.c.reward, job.c.kind, part)
        .order_by(job.c.reward, part)
    )
    origin = 0.0 if axis == "step" else first
    points: defaultdict[tuple[str, bool], list[Point]] = defaultdict(list)
    for row in connection.execute(query):
        points[row.reward, row.kind == "human"].append(_point(row, origin))
    return [
        Curve(reward=reward, human=human, probe=probe, points=found)
        for (reward, human), found in points.items()
    ]


def _point(row: Row[Any], origin: float) -> Point:
    n, groups = int(row.n), int(row.groups)
    mean = row.total / n
    low = high = None
    if groups > 2:
        variance = max(row.s2 - row.s1 * row.s1 / groups, 0.0) / (groups - 1)
        half = Z95 * math.sqrt(variance / groups)
        low, high = mean - half, mean + half
    return Point(x=float(row.x) - origin, mean=mean, low=low, high=high, n=n)


def _awaited(connection: Connection, ids: Sequence[str], latest: float, now: float) -> Awaited:
    left = job.c.n_items - job.c.n_done
    unanswered = case((left > 0, 1), else_=0)
    query = (
        select(
            job.c.kind,
            func.sum(unanswered).label("groups"),
            func.sum(left).label("items"),
            func.min(case((left > 0, job.c.created_at))).label("since"),
        )
        .where(job.c.run_id.in_(ids), job.c.finished_at.is_(None))
        .group_by(job.c.kind)
        .order_by("since")
    )
    rows = connection.execute(query).all()
    for row in rows:
        if row.groups:
            by: Literal["people", "scorers"] = "people" if row.kind == "human" else "scorers"
            since = max(now - row.since, 0.0)
            return Awaited(by=by, groups=row.groups, items=row.items, since_s=since)
    if rows:
        return Awaited(by="settling", groups=0, items=0, since_s=None)
    quiet = max(now - latest, 0.0)
    return Awaited(by="trainer" if quiet < IDLE_S else "nothing", groups=0, items=0, since_s=quiet)


def samples(connection: Connection, run_id: str) -> RunSamples | None:
    """The same prompts over time; None for an unknown run."""
    span = _span(connection, run_id)
    if span is None:
        return None
    axis, first, _ = span
    origin = 0.0 if axis == "step" else first
    probe = f"{run_id}{PROBE}"
    moments = _moments(connection, probe, axis)
    if moments:
        of = (job.c.run_id == probe) & _place(axis).in_(spread(moments, SHOTS))
        return _strips(run_id, "probe", axis, origin, _pictures(connection, of, axis))
    again = _recurring(connection, run_id, axis)
    if again:
        of = (job.c.run_id == run_id) & (item.c.position == 0) & item.c.prompt.in_(again)
        return _strips(run_id, "training", axis, origin, _pictures(connection, of, axis))
    newest = select(job.c.id).where(job.c.run_id == run_id).order_by(job.c.created_at.desc())
    of = job.c.id.in_(newest.limit(STRIPS)) & (item.c.position < SHOTS)
    return _strips(run_id, "latest", axis, origin, _pictures(connection, of, axis))


def _moments(connection: Connection, run_id: str, axis: Axis) -> list[float]:
    place = _place(axis)
    query = select(place).distinct().where(job.c.run_id == run_id, place.is_not(None))
    return [float(one) for one in connection.execute(query.order_by(place)).scalars()]


def _recurring(connection: Connection, run_id: str, axis: Axis) -> list[str]:
    """Prompts that came again at other steps, the most frequent first."""
    place = _place(axis).label("place")
    newest = (
        select(job.c.id, place)
        .where(job.c.run_id == run_id)
        .order_by(job.c.created_at.desc())
        .limit(LOOKED_AT)
        .subquery()
    )
    times = func.count(distinct(newest.c.place))
    query = (
        select(item.c.prompt)
        .join(newest, newest.c.id == item.c.job_id)
        .where(item.c.position == 0, item.c.sha256.is_not(None))
        .group_by(item.c.prompt)
        .having(times > 1)
        .order_by(times.desc(), item.c.prompt)
        .limit(STRIPS)
    )
    return list(connection.execute(query).scalars())


def _pictures(connection: Connection, of: ColumnElement[bool], axis: Axis) -> list[Row[Any]]:
    """The latest pictures that match, in order of the axis."""
    place = _place(axis)
    query = (
        select(item, place.label("place"))
        .join(job, job.c.id == item.c.job_id)
        .where(of, item.c.sha256.is_not(None), place.is_not(None))
        .order_by(job.c.created_at.desc(), item.c.position)
        .limit(LOOKED_AT)
    )
    return sorted(connection.execute(query), key=lambda row: float(row.place))


def _strips(
    run_id: str, source: Source, axis: Axis, origin: float, rows: Sequence[Row[Any]]
) -> RunSamples:
    shots: defaultdict[str, dict[object, Shot]] = defaultdict(dict)
    for row in rows:
        x = float(row.place) - origin
        human = row.kind == "human"
        shot = Shot(x=x, sha256=row.sha256, human=human, status=row.status, reward=row.value)
        # One picture of each moment; of the latest groups, whatever there is.
        shots[row.prompt].setdefault(x if source != "latest" else row.sha256, shot)
    prompts = spread(list(shots), STRIPS)
    return RunSamples(
        run_id=run_id,
        source=source,
        axis=axis,
        strips=[Strip(prompt=p, shots=spread(list(shots[p].values()), SHOTS)) for p in prompts],
    )


def spread(every: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of them, evenly spread, with the first and the last.

    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(every) <= most:
        return list(every)
    return [every[round(i * (len(every) - 1) / (most - 1))] for i in range(most)]
