"""API keys, annotators and their sessions. Secrets are stored as hashes and shown once.

The secrets are 256-bit random strings, so a plain SHA-256 is as good as a slow hash here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, func, select, update

from reward_server.store.sql import insert_new
from reward_server.store.tables import annotator, api_key, session
from shared.schema import Scope
from shared.schema.labels import Role


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


_KEYS: Final = select(func.count()).select_from(api_key)
_LIVE_KEY: Final = select(api_key).where(
    api_key.c.hash == bindparam("digest"), api_key.c.revoked_at.is_(None)
)


def any_key(connection: Connection) -> bool:
    """Whether a key was ever made: from then on, requests need one."""
    return bool(connection.execute(_KEYS).scalar_one())


def key_of(connection: Connection, secret: str) -> Row[Any] | None:
    """The live key with that secret."""
    return connection.execute(_LIVE_KEY, {"digest": digest(secret)}).first()


def create_invite(connection: Connection, name: str, now: float, role: Role = "annotator") -> str:
    """Make a person who signs in with the returned token; it cannot be read again.

    Raises:
        NameTaken: choose another name.
    """
    if connection.execute(select(annotator).where(annotator.c.name == name)).first() is not None:
        raise NameTaken(f"there is an annotator named {name!r} already (perhaps revoked)")
    token = f"inv_{secrets.token_urlsafe(32)}"
    row = _person(name, role, now) | {"invite_hash": digest(token)}
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
    """Name of the person an invite belongs to."""
    live = (annotator.c.invite_hash == digest(token)) & annotator.c.revoked_at.is_(None)
    return connection.execute(select(annotator.c.name).where(live)).scalar()


def _person(name: str, role: Role, now: float) -> dict[str, Any]:
    return {"name": name, "role": role, "created_at": now, "checked_since": 0.0}


def ensure_annotator(connection: Connection, name: str, now: float) -> None:
    """Know a person who needs no invite: on a loopback server without keys."""
    insert_new(connection, annotator, [_person(name, "annotator", now)])


def open_session(connection: Connection, name: str, now: float, lasts_s: float) -> str:
    """Start a session and return its secret, to be kept in a cookie; forgets those that ended."""
    connection.execute(session.delete().where(session.c.expires_at <= now))
    secret = secrets.token_urlsafe(32)
    row = {"hash": digest(secret), "annotator": name, "created_at": now}
    connection.execute(session.insert(), [row | {"expires_at": now + lasts_s}])
    return secret


def session_of(connection: Connection, secret: str, now: float) -> Row[Any] | None:
    """``name`` and ``role`` of the person a live session belongs to, and when it ``expires_at``."""
    query: Select[Any] = (
        select(annotator.c.name, annotator.c.role, session.c.expires_at)
        .join(annotator, annotator.c.name == session.c.annotator)
        .where(session.c.hash == digest(secret), annotator.c.revoked_at.is_(None))
        .where(session.c.expires_at > now)
    )
    return connection.execute(query).first()


def renew_session(connection: Connection, secret: str, until: float) -> None:
    """Let a session that is in use last longer."""
    mine = session.c.hash == digest(secret)
    connection.execute(update(session).where(mine).values(expires_at=until))


def role_of(connection: Connection, name: str) -> Role:
    """Role of a person; programs with a label key are annotators."""
    found = connection.execute(select(annotator.c.role).where(annotator.c.name == name)).scalar()
    return found or "annotator"
