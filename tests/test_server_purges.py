"""Promise: results are kept seven days and then gone, and so are images that nothing needs; labels,
their images, and whatever is still asked for stay.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from reward_server.blobs import Blobs
from shared.images import sha256_hex
from tests.server_setup import HandClock, ask_people, claim, items, label, picture

WEEK = 7 * 86400.0


def ended_machine_job(client: TestClient, number: int) -> dict[str, Any]:
    body = {"items": [items(1, number)[0] | {"target": {"text": "Hi"}}]}
    headers = {"Prefer": "respond-async", "Idempotency-Key": f"key {number}"}
    job = client.post("/score/ocr", json=body, headers=headers).json()
    assert client.post(f"/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    return job


def a_week_later(client: TestClient, clock: HandClock, tmp_path: Path) -> None:
    clock.now += WEEK + 1.0
    for file in (tmp_path / "blobs").rglob("*"):
        os.utime(file, (0, 0))


def purge(client: TestClient) -> None:
    """What the server does by itself every few seconds."""
    assert client.portal is not None
    client.portal.call(client.app.state.service.purge)


def url(number: int) -> str:
    return f"/images/sha256-{sha256_hex(picture(number))}"


def test_results_are_gone_after_a_week_and_labels_are_not(
    client: TestClient, clock: HandClock, tmp_path: Path
) -> None:
    machine, judged = ended_machine_job(client, 1), ask_people(client, 1, first=2)
    label(client, claim(client, 1), "like")
    waiting = ask_people(client, 1, first=3)
    purge(client)
    assert client.get(f"/jobs/{machine['id']}").status_code == 200
    a_week_later(client, clock, tmp_path)
    purge(client)
    for job in (machine, judged):
        for path in (f"/jobs/{job['id']}", f"/jobs/{job['id']}?wait=1"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (410, "purged")
            assert "kept 7 days" in answer.json()["detail"]
    assert [one["id"] for one in client.get("/jobs").json()["jobs"]] == [waiting["id"]]
    assert [client.get(url(n)).status_code for n in (1, 2, 3)] == [404, 200, 200]
    kept = {file.name for file in (tmp_path / "blobs").rglob("*") if file.is_file()}
    assert kept == {sha256_hex(picture(n)) for n in (2, 3)}
    assert '"label": "like"' in client.get("/labels/export").text
    assert len(claim(client)) == 1


def test_a_purged_request_can_be_sent_again(
    client: TestClient, clock: HandClock, tmp_path: Path
) -> None:
    before = ended_machine_job(client, 1)
    a_week_later(client, clock, tmp_path)
    purge(client)
    assert ended_machine_job(client, 1)["id"] != before["id"]
    assert client.get(url(1)).content == picture(1)


def test_an_image_that_is_put_again_stays(
    client: TestClient, clock: HandClock, tmp_path: Path
) -> None:
    for number in (1, 2):
        assert client.put(url(number), content=picture(number)).status_code == 201
    a_week_later(client, clock, tmp_path)
    assert client.put(url(1), content=picture(1)).status_code == 200
    purge(client)
    assert [client.get(url(number)).status_code for number in (1, 2)] == [200, 404]


def test_a_file_somebody_has_just_named_is_not_deleted(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    name = blobs.put(b"an image")
    assert not blobs.remove(name, unused_s=3600.0) and blobs.get(name) == b"an image"
    os.utime(blobs.path(name), (0, 0))
    assert blobs.touch(name) and not blobs.remove(name, unused_s=3600.0)
    os.utime(blobs.path(name), (0, 0))
    assert blobs.remove(name, unused_s=3600.0)
    assert not blobs.touch(name) and not blobs.remove(name, unused_s=3600.0)
    assert list(tmp_path.rglob(".*")) == []
