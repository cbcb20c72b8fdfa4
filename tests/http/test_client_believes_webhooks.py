"""Promise: a receiver believes a webhook exactly if the server's secret signed it just now, and the
signatures are those of Standard Webhooks' own library.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from shared.webhooks import SIGNATURE, NotAuthentic, signature, verify

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMhISE="
MESSAGE = json.dumps(
    {
        "type": "job.ended",
        "timestamp": "2026-01-01T00:00:00.000+00:00",
        "data": {
            "id": "job_1",
            "reward": "ocr",
            "status": "succeeded",
            "run_id": None,
            "group_id": None,
            "step": None,
            "counts": {"ok": 1, "pending": 0, "error": 0},
        },
    }
).encode()
NOW = 1_767_225_600


def headers_of(body: bytes, at: int = NOW, secret: str = SECRET) -> dict[str, str]:
    signed = signature(secret, "msg_1", at, body)
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(at), "Webhook-Signature": signed}


@given(st.binary(max_size=64), st.integers(10**9, 2 * 10**9), st.text("ab_1", min_size=1))
def test_signatures_are_those_of_the_official_library(body: bytes, at: int, name: str) -> None:
    text = body.hex()
    theirs = Webhook(SECRET).sign(name, datetime.fromtimestamp(at, UTC), text)
    assert signature(SECRET, name, at, text.encode()) == theirs


def test_an_authentic_message_is_believed() -> None:
    headers = headers_of(MESSAGE)
    assert verify(SECRET, headers, MESSAGE, now=NOW + 299).data.id == "job_1"
    rotated = headers | {"Webhook-Signature": f"v1,AAAA v2,x {headers['Webhook-Signature']}"}
    assert verify(SECRET, rotated, MESSAGE, now=NOW - 299).data.id == "job_1"


@pytest.mark.parametrize(
    ("change", "now", "words"),
    [
        ({"Webhook-Id": "msg_2"}, NOW, "no signature"),
        ({"Webhook-Timestamp": str(NOW + 1)}, NOW, "no signature"),
        ({"Webhook-Signature": "v1,\u00e9 v1"}, NOW, "no signature"),
        ({"Webhook-Signature": ""}, NOW, "no signature"),
        ({"Webhook-Timestamp": "soon"}, NOW, "epoch seconds"),
        ({"Webhook-Timestamp": "\u0661"}, NOW, "epoch seconds"),
        ({}, NOW + 301, "301 s ago"),
        ({}, NOW - 301, "-301 s ago"),
    ],
)
def test_anything_else_is_not(change: dict[str, str], now: float, words: str) -> None:
    with pytest.raises(NotAuthentic, match=words):
        verify(SECRET, headers_of(MESSAGE) | change, MESSAGE, now=now)


def test_other_bodies_secrets_and_headers_are_not_believed() -> None:
    other = "whsec_" + "b3RoZXI="
    for secret, headers, body in (
        (SECRET, headers_of(MESSAGE), MESSAGE + b" "),
        (other, headers_of(MESSAGE), MESSAGE),
        (SECRET, {}, MESSAGE),
        (SECRET, {SIGNATURE: "v1,x"}, MESSAGE),
        (SECRET, headers_of(b"{}"), b"{}"),
        (SECRET, headers_of(b"\xff"), b"\xff"),
    ):
        with pytest.raises(NotAuthentic):
            verify(secret, headers, body, now=NOW)
