"""Promise: results are kept seven days and then gone, and so are images that nothing needs; labels,
their images, and whatever is still asked for stay.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from reward_server.blobs import Blobs
from reward_server.domain.jobs import Blob
from reward_server.domain.rates import RateExceeded
from reward_server.store import Store, jobs, purging, rates
from shared.images import sha256_hex, to_b64
from tests.support.server_setup import (
    HandClock,
    ask_people,
    claim,
    eventually,
    inside,
    items,
    label,
    picture,
)

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


def test_images_of_refused_requests_are_forgotten_too(
    tmp_path: Path, clock: HandClock, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_pending_human": 2, "rate_limit": 300}
    with inside(tmp_path, clock, database=database, **limits) as client:
        kept = {"Idempotency-Key": "one"}
        assert client.post("/score/human", json={"items": items(1)}, headers=kept).is_success
        full = client.post("/score/human", json={"items": items(2, 1)})
        other = client.post("/score/human", json={"items": items(1, 3)}, headers=kept)
        absent = [*items(1, 4), {"prompt": "a", "image": {"part": "absent"}}]
        part = client.post(
            "/score/human",
            data={"request": json.dumps({"items": absent})},
            files={"another": ("another", picture(5), "image/png")},
        )
        gold = {"prompt": "a", "image": {"b64": to_b64(picture(6))}, "answer": "like"}
        golds = client.post("/golds", json={"golds": [gold, gold | {"image": {"b64": "AAAA"}}]})

        def spent(_connection: object, rate: Any, *_: object) -> None:
            raise RateExceeded(rate, 1, 1.0)

        monkeypatch.setattr(rates, "spend", spent)
        fast = client.post("/score/human", json={"items": items(1, 7)})
        put = client.put(url(8), content=picture(8))
        answers = [one.status_code for one in (full, other, part, golds, fast, put)]
        assert answers == [429, 422, 422, 422, 429, 429]
        a_week_later(client, clock, tmp_path)
        purge(client)
    files = {file.name for file in (tmp_path / "blobs").rglob("*") if file.is_file()}
    assert files == {sha256_hex(picture(0))}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_an_image_that_is_put_again_while_it_is_being_forgotten_stays(database: str) -> None:
    store, image = Store(database), Blob("0" * 64, "image/png", 1, 8, 8)
    store.write(jobs.add_blobs, [image], 0.0)
    waiting = text("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with ThreadPoolExecutor(1) as threads:

        def put_again(connection: Connection) -> Future[list[str]]:
            jobs.add_blobs(connection, [image], 100.0)
            forgetting = threads.submit(store.write, purging.forget_blobs, [image.sha256], 50.0)
            eventually(lambda: store.read(lambda c: c.execute(waiting).scalar_one()))
            return forgetting

        assert store.write(put_again).result(60) == []
    assert store.read(jobs.find_blobs, [image.sha256]) == {image.sha256: image}
    store.close()


def test_a_file_somebody_has_just_named_is_not_deleted(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    name = blobs.put(b"an image")
    assert not blobs.remove(name, unused_s=3600.0) and blobs.get(name) == b"an image"
    os.utime(blobs.path(name), (0, 0))
    assert blobs.touch(name, 8) and not blobs.remove(name, unused_s=3600.0)
    os.utime(blobs.path(name), (0, 0))
    assert blobs.remove(name, unused_s=3600.0)
    assert not blobs.touch(name, 8) and not blobs.remove(name, unused_s=3600.0)
    assert list(tmp_path.rglob(".*")) == []
