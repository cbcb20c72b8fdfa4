"""How a campaign goes: what waits, who clicks how fast, how far people agree. Only reads."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, func, select

from reward_server.domain.agreement import (
    Vote,
    krippendorff_alpha,
    raw_agreement,
    wilson,
    with_others,
)
from reward_server.store.campaigns import belongs_to
from reward_server.store.reliability import gold_votes, latest_votes, learned
from reward_server.store.tables import assignment, item, job
from shared.schema.campaigns import Agreement, AnnotatorStats, CampaignStats, OpenGroup, Share

HOUR_S: Final = 3600.0
PARTS: Final = 24
"""Parts of the last hour in which an annotator's labels are counted."""
PACE_S: Final = 600.0
"""Time over which the present pace is measured."""
MOST: Final = 50_000
"""Labels of the last hour that are looked at."""
GROUPS: Final = 8
"""Open groups that are shown one by one."""

_LABELLED: Final = (assignment.c.kind == "human") & assignment.c.label.is_not(None)
_COUNTED: Final = _LABELLED & assignment.c.state.in_(("done", "skipped"))


def stats(connection: Connection, campaign_id: str, now: float) -> CampaignStats:
    """Everything a requester watches while people click."""
    mine = belongs_to(campaign_id)
    open_ = mine & (job.c.kind == "human") & job.c.finished_at.is_(None)
    open_ &= job.c.n_done < job.c.n_items
    left = func.coalesce(func.sum(job.c.n_items - job.c.n_done), 0)
    total, waiting, oldest = connection.execute(
        select(func.count(), left, func.min(job.c.created_at)).where(open_)
    ).one()
    recent = _recent(connection, mine, now)
    per_second = _pace([row.done_at for row in recent if row.label in ("like", "dislike")], now)
    groups = _groups(connection, open_, per_second, now)
    votes = latest_votes(connection, mine)
    golds, truth = gold_votes(connection)
    known = _right(golds, truth)
    return CampaignStats(
        id=campaign_id,
        waiting=waiting,
        oldest_s=None if oldest is None else max(now - oldest, 0.0),
        groups_waiting=total,
        groups=groups,
        eta_s=_eta(connection, open_, per_second),
        labels_last_hour=len(recent),
        labels_per_hour=None if per_second is None else per_second * HOUR_S,
        part_s=HOUR_S / PARTS,
        annotators=_annotators(recent, votes, known, learned(connection), now),
        agreement=_agreement(votes),
        gold=share(sum(n for n, _ in known.values()), sum(n for _, n in known.values())),
    )


def _recent(connection: Connection, mine: ColumnElement[bool], now: float) -> Sequence[Row[Any]]:
    # The limit also keeps the hour, not the campaign, as the place where the search begins.
    hour = (
        select(assignment)
        .where(_COUNTED, assignment.c.done_at >= now - HOUR_S)
        .order_by(assignment.c.done_at.desc())
        .limit(MOST)
        .subquery()
    )
    query = (
        select(hour.c.worker, hour.c.label, hour.c.done_at, hour.c.rt_ms)
        .join(item, item.c.id == hour.c.item_id)
        .join(job, job.c.id == item.c.job_id)
        .where(mine)
    )
    return list(connection.execute(query))


def _pace(times: list[float], now: float) -> float | None:
    """Votes per second lately; None below two of them."""
    lately = [t for t in times if t >= now - PACE_S]
    if len(lately) < 2:
        return None
    return len(lately) / max(now - min(lately), 1.0)


def _eta(
    connection: Connection, open_: ColumnElement[bool], per_second: float | None
) -> float | None:
    if per_second is None:
        return None
    # At most so many: pictures with some of their votes count as if they had none.
    votes = func.coalesce(func.sum((job.c.n_items - job.c.n_done) * job.c.votes), 0)
    return float(connection.execute(select(votes).where(open_)).scalar_one()) / per_second


def _groups(
    connection: Connection, open_: ColumnElement[bool], per_second: float | None, now: float
) -> list[OpenGroup]:
    """The groups that people finish first, in the order of ``claims.claim``."""
    nearest = (job.c.n_done * 1.0 / job.c.n_items).desc()
    query = select(job).where(open_).order_by(nearest, job.c.created_at).limit(GROUPS)
    found = connection.execute(query).all()
    ids = [row.id for row in found]
    items: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    of = select(item).where(item.c.job_id.in_(ids)).order_by(item.c.job_id, item.c.position)
    for row in connection.execute(of):
        items[row.job_id].append(row)
    groups, before = [], 0
    for row in found:
        missing = sum(max(i.need - i.done, 0) for i in items[row.id] if i.status == "pending")
        before += missing
        groups.append(
            OpenGroup(
                job=row.id,
                group_id=row.group_id,
                step=row.step,
                prompt=items[row.id][0].prompt,
                cells="".join(map(_cell, items[row.id])),
                votes_missing=missing,
                age_s=max(now - row.created_at, 0.0),
                eta_s=None if per_second is None else before / per_second,
            )
        )
    return groups


def _cell(row: Row[Any]) -> str:
    if row.status == "ok":
        return "l" if row.value >= 0.5 else "d"
    if row.status != "pending":
        return "x"
    return "h" if row.leased else "."


def _right(golds: Sequence[Vote], truth: Mapping[Hashable, bool]) -> dict[str, tuple[int, int]]:
    """Right answers to golds, and answers to golds, by annotator."""
    found: dict[str, tuple[int, int]] = {}
    for vote in golds:
        right, answered = found.get(str(vote.rater), (0, 0))
        found[str(vote.rater)] = (right + (vote.label == truth[vote.item]), answered + 1)
    return found


def _annotators(
    recent: Sequence[Row[Any]],
    votes: Sequence[Vote],
    known: Mapping[str, tuple[int, int]],
    accuracy: Mapping[str, float],
    now: float,
) -> list[AnnotatorStats]:
    by_name: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in recent:
        by_name[row.worker].append(row)
    pairs = {str(name): share(*found) for name, found in with_others(votes).items()}
    busiest = sorted(by_name.items(), key=lambda one: (-len(one[1]), one[0]))
    return [
        _annotator(name, rows, now).model_copy(
            update={
                "agreement": pairs.get(name),
                "gold": share(*known[name]) if name in known else None,
                "accuracy": accuracy.get(name),
            }
        )
        for name, rows in busiest
    ]


def _annotator(name: str, rows: Sequence[Row[Any]], now: float) -> AnnotatorStats:
    """One person's pace; how good they are is known elsewhere."""
    labels = Counter(row.label for row in rows)
    pace = [0] * PARTS
    for row in rows:
        part = int((row.done_at - (now - HOUR_S)) / HOUR_S * PARTS)
        pace[min(max(part, 0), PARTS - 1)] += 1
    times = [row.rt_ms / 1000 for row in rows if row.rt_ms is not None]
    return AnnotatorStats(
        name=name,
        labels=len(rows),
        likes=labels["like"],
        skips=labels["skip"] + labels["flag"],
        pace=pace,
        median_s=statistics.median(times) if times else None,
        last_s=max(now - max(row.done_at for row in rows), 0.0),
        agreement=None,
        gold=None,
        accuracy=None,
    )


def _agreement(votes: Sequence[Vote]) -> Agreement:
    raw, alpha = raw_agreement(votes), krippendorff_alpha(votes)
    return Agreement(pictures=raw.items, raw=raw.value, alpha=alpha.value, why=raw.why or alpha.why)


def share(part: int, whole: int) -> Share | None:
    """A share with its interval; None of nothing."""
    bounds = wilson(part, whole)
    return None if bounds is None else Share(part=part, whole=whole, low=bounds[0], high=bounds[1])
