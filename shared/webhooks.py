"""Webhooks of the reward server by Standard Webhooks (https://www.standardwebhooks.com): what is
sent, how it is signed, and ``verify`` for whoever receives it.

The server sends ``POST`` with a JSON body and the headers ``webhook-id`` (the same for every
attempt at one message: what was seen before can be ignored), ``webhook-timestamp`` (epoch seconds
of the attempt) and ``webhook-signature`` (``v1,`` and base64 of HMAC-SHA256 over
``id.timestamp.body``). Any 2xx within 15 s is a receipt; 410 says never again; anything else is
tried again after 5, 10, 20, ... seconds, at most an hour, for three days.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import ValidationError

from shared.schema import Counts, JobStatus, Wire

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
SECRET_PREFIX: Final = "whsec_"
TOLERANCE_S: Final = 300.0
"""Farthest a timestamp may be from now: an old message that is sent again is no news."""


class NotAuthentic(ValueError):
    """A webhook that cannot be trusted: forged, changed, replayed, or signed by another secret."""


class JobEnded(Wire):
    """A job that is over; thin on purpose: ``GET /jobs/{id}`` has the rewards."""

    id: str
    reward: str
    status: JobStatus
    run_id: str | None
    group_id: str | None
    step: int | None
    counts: Counts


class JobMessage(Wire):
    """Body of a webhook; ``timestamp`` is when the job ended (ISO 8601, UTC)."""

    type: Literal["job.ended"] = "job.ended"
    timestamp: str
    data: JobEnded


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, *, now: float | None = None
) -> JobMessage:
    """The message of a received webhook, if this server's secret signed it just now.

    Args:
        secret: ``whsec_...``, as ``webhooks create`` printed it.
        headers: of the request, in any spelling.
        body: the request's bytes as they came; parsing and writing them anew changes them.
        now: epoch seconds, for tests.

    Raises:
        NotAuthentic: do not believe it; answer 400.
    """
    found = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID, TIMESTAMP, SIGNATURE) if name not in found]
    if missing:
        raise NotAuthentic(f"headers {', '.join(missing)} are missing")
    stamp = found[TIMESTAMP]
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 16):
        raise NotAuthentic(f"{TIMESTAMP} {stamp!r} is no time in epoch seconds")
    age_s = (time.time() if now is None else now) - int(stamp)
    if abs(age_s) > TOLERANCE_S:
        raise NotAuthentic(f"sent {age_s:.0f} s ago; at most {TOLERANCE_S:.0f} s are believed")
    expected = signature(secret, found[ID], int(stamp), body)
    signatures = found[SIGNATURE].encode().split()
    if not any(hmac.compare_digest(expected.encode(), one) for one in signatures):
        raise NotAuthentic("no signature fits: another secret, or the body was changed on its way")
    try:
        return JobMessage.model_validate_json(body)
    except ValidationError as error:
        raise NotAuthentic(f"signed, but no message of this API: {error}") from None


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature for the ``webhook-signature`` header.

    Raises:
        ValueError: the secret is not ``whsec_`` and base64.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a webhook secret is {SECRET_PREFIX} and base64") from None
