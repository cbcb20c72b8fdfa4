"""What every API key has used of its rate, in the database, so that all servers count together."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from reward_server.domain.rates import Rate
from reward_server.store.sql import insert_new
from reward_server.store.tables import usage


def check(connection: Connection, rate: Rate, now: float) -> None:
    """Whether the key may send one image; only reads.

    Raises:
        RateExceeded: not even one.
    """
    query = select(usage.c.full_at).where(usage.c.key == rate.key)
    rate.spend(connection.execute(query).scalar() or now, 1, now)


def spend(connection: Connection, rate: Rate, images: int, now: float) -> None:
    """Count ``images`` against the key; undone with the transaction.

    Raises:
        RateExceeded: too many for now.
    """
    insert_new(connection, usage, [{"key": rate.key, "full_at": now}])
    mine = usage.c.key == rate.key
    query = select(usage.c.full_at).where(mine).with_for_update()
    full_at = rate.spend(connection.execute(query).scalar_one(), images, now)
    connection.execute(update(usage).where(mine).values(full_at=full_at))
