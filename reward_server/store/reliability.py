"""Who can be relied on, kept in the database, and votes weighed by it where a campaign asks for it.

Off by default (``weights`` of a campaign is ``equal``): weighing needs pictures that several people
judged, and a minority with a taste of its own would be weighed down by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, select, true, update

from reward_server.domain.agreement import Vote
from reward_server.domain.reliability import TYPICAL, dawid_skene, weight
from reward_server.domain.votes import weighted_reward
from reward_server.store.locks import lock_items
from reward_server.store.tables import assignment, item, job, reliability

LATEST: Final = 4000
"""Latest votes that figures of agreement and reliability rest on."""
_JUDGED: Final = (assignment.c.kind == "human") & (assignment.c.state == "done")


def latest_votes(connection: Connection, of: ColumnElement[bool] | None = None) -> list[Vote]:
    """Of the latest votes those on items that several people judged; ``of``: condition on jobs."""
    newest = (
        select(assignment.c.item_id, assignment.c.worker, assignment.c.label)
        .where(_JUDGED, assignment.c.label.is_not(None))
        .order_by(assignment.c.done_at.desc())
        .limit(LATEST)
        .subquery()
    )
    query = (
        select(newest)
        .join(item, item.c.id == newest.c.item_id)
        .join(job, job.c.id == item.c.job_id)
        .where(item.c.done > 1, true() if of is None else of)
    )
    return [Vote(row.item_id, row.worker, row.label == "like") for row in connection.execute(query)]


def gold_votes(connection: Connection) -> tuple[list[Vote], dict[Hashable, bool]]:
    """Of the latest labels those on pictures whose answer is known (kind ``gold``), and the truth.

    A gold's value is its answer: 1 to be liked, 0 to be disliked.
    """
    newest = (
        select(assignment)
        .where(assignment.c.label.is_not(None))
        .order_by(assignment.c.done_at.desc())
        .limit(LATEST)
        .subquery()
    )
    query = (
        select(item.c.id, item.c.value, newest.c.worker, newest.c.label)
        .join(newest, newest.c.item_id == item.c.id)
        .where(newest.c.kind == "gold", newest.c.state == "done", item.c.status == "ok")
    )
    rows = connection.execute(query).all()
    truth: dict[Hashable, bool] = {row.id: row.value >= 0.5 for row in rows}
    return [Vote(row.id, row.worker, row.label == "like") for row in rows], truth


def wanted(connection: Connection) -> bool:
    """Whether any job that is not over has its votes weighed."""
    query = and_(job.c.kind == "human", job.c.finished_at.is_(None), job.c.weights != "equal")
    return bool(connection.execute(select(exists().where(query))).scalar_one())


def learn(connection: Connection, accuracy: dict[str, float], now: float) -> None:
    """Keep estimates, in place of earlier ones."""
    rows = [{"worker": w, "accuracy": p, "updated_at": now} for w, p in accuracy.items()]
    if rows:
        connection.execute(reliability.delete().where(reliability.c.worker.in_(list(accuracy))))
        connection.execute(reliability.insert(), rows)


def learned(connection: Connection) -> dict[str, float]:
    """Accuracy by annotator, as it was estimated last."""
    return {row.worker: row.accuracy for row in connection.execute(select(reliability))}


def estimate(votes: Sequence[Vote], truth: Mapping[Hashable, bool]) -> dict[str, float]:
    """Accuracy by annotator, from how far they agree and from golds."""
    found = dawid_skene(votes, truth)
    return {} if found is None else {str(name): p for name, p in found.accuracy.items()}


def weigh(connection: Connection, job_id: str) -> float | None:
    """Give the scored items of a held job rewards by weighed votes; by how much their sum grew.

    An annotator nothing is known about weighs as a typical one. None, and nothing is changed, while
    somebody else holds one of the items: they may wait for the job, so nobody waits for them here.
    """
    scored = select(item.c.id).where(item.c.job_id == job_id, item.c.status == "ok")
    wanted = connection.execute(scored).scalars().all()
    if len(lock_items(connection, wanted, wait=False)) < len(wanted):
        return None
    query = (
        select(item.c.id, item.c.value, item.c.detail, assignment.c.label, reliability.c.accuracy)
        .join(assignment, assignment.c.item_id == item.c.id)
        .join(reliability, reliability.c.worker == assignment.c.worker, isouter=True)
        .where(item.c.job_id == job_id, item.c.status == "ok", _JUDGED)
    )
    votes: defaultdict[int, list[tuple[bool, float]]] = defaultdict(list)
    before: dict[int, tuple[float, dict[str, Any]]] = {}
    for row in connection.execute(query):
        accuracy = TYPICAL if row.accuracy is None else row.accuracy
        votes[row.id].append((row.label == "like", weight(accuracy)))
        before[row.id] = (row.value, row.detail or {})
    rows, grown = [], 0.0
    for key, given in votes.items():
        value, detail = before[key]
        reward = weighted_reward(given)
        assert reward is not None
        grown += reward - value
        rows.append({"key": key, "value": reward, "detail": detail | {"unweighted": value}})
    if rows:
        statement = update(item).where(item.c.id == bindparam("key"))
        statement = statement.values(value=bindparam("value"), detail=bindparam("detail"))
        connection.execute(statement, rows)
    return grown
