"""API keys, annotators and their sessions. Secrets are stored as hashes and shown once.

The secrets are 256-bit random strings, so a plain SHA-256 is as good as a slow hash here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from reward_server.store.sql import insert_new
from reward_server.store.tables import annotator, api_key, session
from shared.schema import Scope


class NameTaken(ValueError):
    """A key or annotator of that name exists already."""


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(connection: Connection, name: str, scopes: Sequence[Scope], now: float) -> str:
    """Make an API key and return it; it cannot be read again.

    Raises:
        NameTaken: choose another name, or revoke the old key.
    """
    if connection.execute(select(api_key).where(api_key.c.name == name)).first() is not None:
        raise NameTaken(f"there is a key named {name!r} already (perhaps revoked)")
    secret = f"rsk_{secrets.token_urlsafe(32)}"
    row = {"name": name, "hash": digest(secret), "scopes": list(scopes), "created_at": now}
    connection.execute(api_key.insert(), [row])
    return secret


def keys(connection: Connection) -> list[Row[Any]]:
    """All keys, oldest first, revoked ones included."""
    return list(connection.execute(select(api_key).order_by(api_key.c.created_at)))


def revoke_key(connection: Connection, name: str, now: float) -> bool:
    """Make a key useless from now on; False if no such key is in use."""
    live = (api_key.c.name == name) & api_key.c.revoked_at.is_(None)
    return connection.execute(update(api_key).where(live).values(revoked_at=now)).rowcount > 0


def any_key(connection: Connection) -> bool:
    """Whether a key was ever made: from then on, requests need one."""
    return bool(connection.execute(select(func.count()).select_from(api_key)).scalar_one())


def key_of(connection: Connection, secret: str) -> Row[Any] | None:
    """The live key with that secret."""
    live = (api_key.c.hash == digest(secret)) & api_key.c.revoked_at.is_(None)
    return connection.execute(select(api_key).where(live)).first()


def create_invite(connection: Connection, name: str, now: float) -> str:
    """Make an annotator who signs in with the returned token; it cannot be read again.

    Raises:
        NameTaken: choose another name.
    """
    if connection.execute(select(annotator).where(annotator.c.name == name)).first() is not None:
        raise NameTaken(f"there is an annotator named {name!r} already (perhaps revoked)")
    token = f"inv_{secrets.token_urlsafe(32)}"
    row = {"name": name, "invite_hash": digest(token), "created_at": now}
    connection.execute(annotator.insert(), [row])
    return token


def annotators(connection: Connection) -> list[Row[Any]]:
    """All annotators, oldest first, revoked ones included."""
    return list(connection.execute(select(annotator).order_by(annotator.c.created_at)))


def revoke_annotator(connection: Connection, name: str, now: float) -> bool:
    """Sign an annotator out for good; their labels stay."""
    live = (annotator.c.name == name) & annotator.c.revoked_at.is_(None)
    done = connection.execute(update(annotator).where(live).values(revoked_at=now)).rowcount > 0
    connection.execute(session.delete().where(session.c.annotator == name))
    return done


def invited(connection: Connection, token: str) -> str | None:
    """Name of the annotator an invite belongs to."""
    live = (annotator.c.invite_hash == digest(token)) & annotator.c.revoked_at.is_(None)
    return connection.execute(select(annotator.c.name).where(live)).scalar()


def ensure_annotator(connection: Connection, name: str, now: float) -> None:
    """Know a person who needs no invite: on a loopback server without keys."""
    insert_new(connection, annotator, [{"name": name, "created_at": now}])


def open_session(connection: Connection, name: str, now: float) -> str:
    """Start a session and return its secret, to be kept in a cookie."""
    secret = secrets.token_urlsafe(32)
    row = {"hash": digest(secret), "annotator": name, "created_at": now}
    connection.execute(session.insert(), [row])
    return secret


def session_of(connection: Connection, secret: str) -> str | None:
    """Name of the annotator a session belongs to."""
    query = (
        select(session.c.annotator)
        .join(annotator, annotator.c.name == session.c.annotator)
        .where(session.c.hash == digest(secret), annotator.c.revoked_at.is_(None))
    )
    return connection.execute(query).scalar()
