"""Changing a job that people are at: its deadline, and how many votes its images need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from reward_server.domain.jobs import Rules, Tally, decide_item, votes_needed
from reward_server.store.locks import lock_items, lock_jobs
from reward_server.store.settling import answer, note, rules_of, settle, write_items
from reward_server.store.tables import assignment, item, job
from shared.schema import TERMINAL


class ChangeRefused(Exception):
    """The job is over, or could never end that way."""


@dataclass(frozen=True)
class Change:
    """New values for a job's open items; None leaves one as it is."""

    deadline_at: float | None = None
    votes: int | None = None


def change(
    connection: Connection, job_id: str, wanted: Change, now: float, settle_s: float
) -> None:
    """Apply ``wanted`` to the items of a job that have no answer yet.

    With fewer votes needed, items that have enough are scored at once, and leases that are not
    needed any more are taken back, the newest first.

    Raises:
        ChangeRefused: nothing was changed.
    """
    mine = item.c.job_id == job_id
    lock_items(connection, connection.execute(select(item.c.id).where(mine)).scalars())
    lock_jobs(connection, [job_id])
    row = connection.execute(select(job).where(job.c.id == job_id)).one()
    if row.status in TERMINAL:
        raise ChangeRefused(f"job {job_id} is {row.status}: its rewards do not change any more")
    if wanted.deadline_at is not None:
        pending = update(item).where(mine, item.c.status == "pending")
        connection.execute(pending.values(deadline_at=wanted.deadline_at))
    if wanted.votes is not None:
        _change_votes(connection, row, wanted.votes)
    data = {"deadline_at": wanted.deadline_at, "votes": wanted.votes}
    note(connection, "change", "requester", now, job_id=job_id, data=data)
    settle(connection, [job_id], now, settle_s)


def _change_votes(connection: Connection, row: Row[Any], votes: int) -> None:
    least = max(row.min_votes, row.quorum or 1)
    if votes < least:
        raise ChangeRefused(f"votes={votes} could never reach min_votes or quorum, {least} here")
    # Skips follow the votes unless they were chosen apart.
    skips = votes if row.max_skips == row.votes else row.max_skips
    values = {"votes": votes, "max_skips": skips}
    connection.execute(update(job).where(job.c.id == row.id).values(values))
    rules = replace(rules_of(row), votes=votes, max_skips=skips)
    open_ = select(item).where(item.c.job_id == row.id, item.c.status == "pending")
    for one in connection.execute(open_).all():
        _apply(connection, one, rules)


def _apply(connection: Connection, one: Row[Any], rules: Rules) -> None:
    tally = Tally(one.likes, one.dislikes, one.skips)
    end = decide_item(rules, tally)
    need = votes_needed(rules, tally)
    keep = 0 if end is not None else min(one.leased, need - one.done)
    _revoke(connection, one.id, one.leased - keep)
    values = {"need": need, "leased": keep}
    connection.execute(update(item).where(item.c.id == one.id).values(values))
    if end is not None:
        ended = answer(one.id, end.status, value=end.reward, detail=end.detail, error=end.error)
        write_items(connection, [ended])


def _revoke(connection: Connection, item_id: int, n: int) -> None:
    live = (assignment.c.item_id == item_id) & (assignment.c.state == "leased")
    newest = select(assignment.c.id).where(live).order_by(assignment.c.id.desc()).limit(n)
    ids = list(connection.execute(newest).scalars()) if n > 0 else []
    connection.execute(update(assignment).where(assignment.c.id.in_(ids)).values(state="revoked"))
