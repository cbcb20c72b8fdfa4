"""Golds: pictures whose answer is known, shown among the others to see how well somebody judges.

A gold is an item of kind ``gold`` that has its value from the start: people's labels on it go the
same way as all others, and nothing that makes a reward of labels looks at items of that kind.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, case, exists, func, select, update

from reward_server.domain.jobs import LIVE, Blob, NewItem, NewJob
from reward_server.domain.standing import WINDOW, GoldRecord
from reward_server.store.jobs import add_blobs, item_row, job_row
from reward_server.store.leases import grant
from reward_server.store.locks import lock_name
from reward_server.store.settling import note
from reward_server.store.tables import annotator, assignment, item, job

EVERYBODY: Final = 10**6
"""Votes a gold may get: as many as there are people."""

Answer = Literal["like", "dislike"]

_IN_USE: Final = (item.c.kind == "gold") & (item.c.status == "ok")
_ANSWERS: Final = (
    select(
        assignment.c.id,
        assignment.c.worker,
        assignment.c.item_id,
        assignment.c.label,
        assignment.c.done_at,
        func.row_number()
        .over(
            partition_by=(assignment.c.worker, assignment.c.item_id),
            order_by=(assignment.c.done_at, assignment.c.id),
        )
        .label("number"),
    )
    .where(
        assignment.c.kind == "gold",
        assignment.c.label.in_(("like", "dislike")),
        (assignment.c.state == "done") | assignment.c.undone_at.is_not(None),
    )
    .subquery("answers")
)
"""Everybody's answers to golds, those taken back among them, numbered: the first one decides."""
_FIRST: Final = _ANSWERS.c.number == 1
_RIGHT: Final = case(
    (and_(_ANSWERS.c.label == "like", item.c.value == 1.0), 1),
    (and_(_ANSWERS.c.label == "dislike", item.c.value == 0.0), 1),
    else_=0,
)


@dataclass(frozen=True)
class Gold:
    """A picture and the answer to it."""

    prompt: str
    image: Blob
    answer: Answer
    instruction: str | None = None


def add(connection: Connection, golds: Sequence[Gold], now: float) -> int:
    """Take golds in; one with a known picture and prompt only gets the new answer.

    Returns how many were new.
    """
    lock_name(connection, "accept")
    add_blobs(connection, [one.image for one in golds], now)
    fresh = [one for one in golds if not _answer_again(connection, one)]
    for instruction in dict.fromkeys(one.instruction for one in fresh):
        alike = [one for one in fresh if one.instruction == instruction]
        alike = list({(one.image.sha256, one.prompt): one for one in alike}.values())
        _insert(connection, alike, instruction, now)
    return len({(one.image.sha256, one.prompt, one.instruction) for one in fresh})


def _answer_again(connection: Connection, gold: Gold) -> bool:
    same = _IN_USE & (item.c.sha256 == gold.image.sha256) & (item.c.prompt == gold.prompt)
    value = update(item).where(same).values(value=float(gold.answer == "like"))
    return connection.execute(value).rowcount > 0


def _insert(
    connection: Connection, golds: Sequence[Gold], instruction: str | None, now: float
) -> None:
    name = f"gold_{secrets.token_hex(8)}"
    items = [NewItem(prompt=one.prompt, image=one.image) for one in golds]
    of = NewJob(name, "gold", "human", "gold", items, name, None, 0, instruction=instruction)
    connection.execute(job.insert(), [job_row(of, now) | {"status": "running"}])
    rows = [
        item_row(of, at, now)
        | {"status": "ok", "value": float(one.answer == "like"), "need": EVERYBODY}
        for at, one in enumerate(golds)
    ]
    connection.execute(item.insert(), rows)


def remove(connection: Connection, gold: int) -> bool:
    """Show a gold no more, and let the answers to it count no more; False if there is none."""
    mine = _IN_USE & (item.c.id == gold)
    return (
        connection.execute(update(item).where(mine).values(status="skipped", value=None)).rowcount
        > 0
    )


def in_use(connection: Connection) -> list[Row[Any]]:
    """All golds that are shown, oldest first."""
    query = select(item, job.c.instruction).join(job, job.c.id == item.c.job_id)
    return list(connection.execute(query.where(_IN_USE).order_by(item.c.id)))


def _unseen(worker: str) -> ColumnElement[bool]:
    seen = exists().where(
        assignment.c.item_id == item.c.id,
        assignment.c.worker == worker,
        assignment.c.state.in_(LIVE),
    )
    return _IN_USE & ~seen


def record(connection: Connection, worker: str) -> GoldRecord:
    """How a person does on golds, by the first answer to each; programs with a key see none."""
    person = select(annotator.c.checked_since).where(annotator.c.name == worker)
    since = connection.execute(person).scalar()
    if since is None:
        return GoldRecord(0, 0, 0, 0)
    mine = _FIRST & _IN_USE & (_ANSWERS.c.worker == worker) & (_ANSWERS.c.done_at > since)
    latest = (
        select(_RIGHT.label("right"))
        .join(item, item.c.id == _ANSWERS.c.item_id)
        .where(mine)
        .order_by(_ANSWERS.c.done_at.desc(), _ANSWERS.c.id.desc())
        .limit(WINDOW)
    )
    answers = list(connection.execute(latest).scalars())
    unseen = connection.execute(select(func.count()).where(_unseen(worker))).scalar_one()
    on_screen = (
        (assignment.c.worker == worker)
        & (assignment.c.kind == "gold")
        & (assignment.c.state == "leased")
    )
    held = connection.execute(select(func.count()).where(on_screen)).scalar_one()
    return GoldRecord(sum(answers), len(answers), int(held), int(unseen))


def claim(
    connection: Connection, worker: str, n: int, now: float, lease_s: float, page: str | None
) -> list[str]:
    """Lease up to ``n`` golds this person has not seen; returns the tokens."""
    if n <= 0:
        return []
    query = (
        select(item.c.id)
        .where(_unseen(worker))
        .order_by(func.random())
        .limit(n)
        .with_for_update(of=item, key_share=True, skip_locked=True)
    )
    tokens = {one: secrets.token_urlsafe(12) for one in connection.execute(query).scalars()}
    if tokens:
        grant(connection, tokens, worker, "gold", now, lease_s, page)
        taken = update(item).where(item.c.id.in_(list(tokens)))
        connection.execute(taken.values(leased=item.c.leased + 1))
    return list(tokens.values())


def check_anew(connection: Connection, worker: str, actor: str, now: float) -> bool:
    """Let somebody go on after a pause: earlier answers count no more. False if unknown."""
    mine = update(annotator).where(annotator.c.name == worker)
    if connection.execute(mine.values(checked_since=now)).rowcount == 0:
        return False
    note(connection, "resume", actor, now, data={"annotator": worker})
    return True


def accuracy(connection: Connection) -> list[Row[Any]]:
    """``annotator``, ``right`` and ``answered`` over all time of everybody who met golds."""
    query = (
        select(
            _ANSWERS.c.worker.label("annotator"),
            func.sum(_RIGHT).label("right"),
            func.count().label("answered"),
        )
        .join(item, item.c.id == _ANSWERS.c.item_id)
        .where(_FIRST, _IN_USE)
        .group_by(_ANSWERS.c.worker)
        .order_by(_ANSWERS.c.worker)
    )
    return list(connection.execute(query))
