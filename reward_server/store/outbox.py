"""Endpoints of webhooks, and the messages on their way to them.

A message is written in the transaction that ends its job (``settling.announce``), so that one is
never there without the other. It goes when its endpoint has taken it, or after ``GIVE_UP_S``.
Whoever sends takes a message for ``TAKEN_S``; should it die meanwhile, somebody takes it again: a
message is delivered at least once, now and then twice, and by one process at a time.
"""

from __future__ import annotations

import base64
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, select, update

from reward_server.store.people import NameTaken
from reward_server.store.settling import note
from reward_server.store.tables import outbox, webhook
from shared.webhooks import SECRET_PREFIX

FIRST_RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 3600.0
GIVE_UP_S: Final = 72 * 3600.0
TAKEN_S: Final = 30.0
"""Twice what one attempt may take."""


@dataclass(frozen=True)
class Message:
    """One message, taken to be sent; ``body`` is the same at every attempt."""

    id: str
    name: str
    url: str
    secret: str
    body: str
    attempts: int
    created_at: float


def create(connection: Connection, name: str, url: str, now: float) -> str:
    """Register an endpoint and return the secret its messages are signed with.

    Raises:
        NameTaken: choose another name.
    """
    if connection.execute(select(webhook).where(webhook.c.name == name)).first() is not None:
        raise NameTaken(f"there is a webhook named {name!r} already (perhaps revoked)")
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    row = {"name": name, "url": url, "secret": secret, "created_at": now}
    connection.execute(webhook.insert(), [row])
    return secret


def revoke(connection: Connection, name: str, now: float) -> bool:
    """Send nothing there from now on; False if no such endpoint is in use."""
    live = (webhook.c.name == name) & webhook.c.revoked_at.is_(None)
    if connection.execute(update(webhook).where(live).values(revoked_at=now)).rowcount == 0:
        return False
    connection.execute(delete(outbox).where(outbox.c.webhook == name))
    return True


def endpoints(connection: Connection) -> list[Row[Any]]:
    """All endpoints, oldest first, revoked ones included."""
    return list(connection.execute(select(webhook).order_by(webhook.c.created_at)))


def known(connection: Connection, name: str) -> bool:
    """Whether an endpoint of that name is in use."""
    live = (webhook.c.name == name) & webhook.c.revoked_at.is_(None)
    return connection.execute(select(webhook.c.name).where(live)).first() is not None


def due(connection: Connection, now: float) -> list[str]:
    """Endpoints with messages to be sent; only reads."""
    query = select(outbox.c.webhook).where(outbox.c.due_at <= now).distinct()
    return list(connection.execute(query).scalars())


def take(connection: Connection, name: str, now: float, limit: int) -> list[Message]:
    """Take up to ``limit`` due messages of one endpoint, oldest first; counts the attempt."""
    if not known(connection, name):
        # A job that ended while its endpoint was being revoked has written one more.
        connection.execute(delete(outbox).where(outbox.c.webhook == name))
        return []
    rows = connection.execute(
        select(outbox, webhook.c.url, webhook.c.secret)
        .join(webhook, webhook.c.name == outbox.c.webhook)
        .where(outbox.c.webhook == name, outbox.c.due_at <= now)
        .order_by(outbox.c.created_at, outbox.c.id)
        .limit(limit)
        .with_for_update(of=outbox, skip_locked=True)
    ).all()
    mine = outbox.c.id.in_([row.id for row in rows])
    taken = {"due_at": now + TAKEN_S, "attempts": outbox.c.attempts + 1}
    connection.execute(update(outbox).where(mine).values(taken))
    return [
        Message(row.id, name, row.url, row.secret, row.body, row.attempts + 1, row.created_at)
        for row in rows
    ]


def delivered(connection: Connection, message: Message) -> None:
    """Forget a message: its endpoint has it."""
    connection.execute(delete(outbox).where(outbox.c.id == message.id))


def failed(connection: Connection, message: Message, now: float, *, gone: bool = False) -> bool:
    """Try a message again later; True if it was given up, now or while it was being sent."""
    mine = (outbox.c.id == message.id) & (outbox.c.attempts == message.attempts)
    if gone or now - message.created_at >= GIVE_UP_S:
        if connection.execute(delete(outbox).where(mine)).rowcount:
            note(connection, "webhook_given_up", message.name, now, data={"id": message.id})
        return True
    pause = min(FIRST_RETRY_S * 2.0 ** (message.attempts - 1), LONGEST_RETRY_S)
    due_at = now + pause * random.uniform(0.8, 1.2)
    connection.execute(update(outbox).where(mine).values(due_at=due_at))
    return False


def waiting(connection: Connection, now: float) -> Mapping[str, tuple[int, float]]:
    """Messages on their way by endpoint, and the age of the oldest in seconds."""
    query = select(outbox.c.webhook, func.count(), func.min(outbox.c.created_at))
    rows = connection.execute(query.group_by(outbox.c.webhook)).all()
    return {name: (n, max(now - since, 0.0)) for name, n, since in rows}
