"""Promise: a job is accepted once, can be waited for, cancelled and acknowledged, and says no
before it takes what it cannot keep.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from reward_server.api.middleware import SMALL_BODY_BYTES
from shared.images import sha256_hex
from shared.schema import MAX_BODY_BYTES
from tests.support.server_setup import ask_people, claim, inside, items, job_of, label, picture


@pytest.fixture
def client(tmp_path: Path, database: str) -> Iterator[TestClient]:
    limits = {"max_pending_human": 50, "max_pending_machine": 5}
    with inside(tmp_path, database=database, **limits) as opened:
        yield opened


def ocr(client: TestClient, n: int = 1, key: str | None = None, text: str = "Hi") -> object:
    body = {"items": [one | {"target": {"text": text}} for one in items(n)]}
    headers = {"Prefer": "respond-async"} | ({"Idempotency-Key": key} if key else {})
    return client.post("/score/ocr", json=body, headers=headers)


def test_the_same_key_finds_the_same_job(client: TestClient) -> None:
    first, again = ocr(client, key="k"), ocr(client, key="k")
    assert again.json()["id"] == first.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = ocr(client, key="k", text="other")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert ocr(client, key="another").json()["id"] != first.json()["id"]


def test_the_same_key_at_the_same_time_makes_one_job(client: TestClient) -> None:
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append(ocr(client, key="race").json()["id"]))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6 and len(set(seen)) == 1


def test_people_are_not_asked_the_same_twice_even_without_a_key(client: TestClient) -> None:
    assert ask_people(client, 3)["id"] == ask_people(client, 3)["id"]
    assert ask_people(client, 3, group_id="other")["id"] != ask_people(client, 3)["id"]
    assert len(claim(client)) == 6


def test_an_accepted_job_has_a_receipt(client: TestClient) -> None:
    answer = ocr(client)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert answer.headers["retry-after"] == "1"
    assert (job["rewards"], job["valid"], job["counts"]["pending"]) == ([None], [False], 1)


def test_too_much_is_refused_before_anything_is_accepted(client: TestClient) -> None:
    assert ocr(client, 3).status_code == 202
    full = ocr(client, 3)
    assert (full.status_code, full.json()["code"]) == (429, "queue_full")
    assert full.json()["queue_depth"] == 3 and full.json()["retryable"]
    assert int(full.headers["retry-after"]) >= 1
    assert client.get("/info").json()["traffic"]["items"] == 3
    assert ocr(client, 2).status_code == 202


def test_waiting_ends_when_the_revision_changes(client: TestClient) -> None:
    job = ask_people(client, 2)
    began = time.monotonic()
    timer = threading.Timer(0.3, lambda: claim(client, 1))
    timer.start()
    now = job_of(client, job, wait=30, rev=job["rev"])
    timer.join()
    assert now["rev"] > job["rev"] and now["status"] == "running"
    assert time.monotonic() - began < 20


def test_waiting_in_vain_ends_in_time(client: TestClient) -> None:
    job = ask_people(client, 1)
    began = time.monotonic()
    assert job_of(client, job, wait=0.3)["status"] == "queued"
    assert 0.3 <= time.monotonic() - began < 15


def test_one_request_waits_for_many_jobs(client: TestClient) -> None:
    jobs = [ask_people(client, 1, first=i, priority=-i) for i in range(3)]
    ids = [job["id"] for job in jobs]
    nothing = client.post("/jobs/wait", json={"ids": [*ids, "job_x"], "wait": 0.1}).json()
    assert (nothing["jobs"], nothing["pending"], nothing["unknown"]) == ([], ids, ["job_x"])
    label(client, claim(client, 1), "like")
    one = client.post("/jobs/wait", json={"ids": ids, "wait": 20}).json()
    assert [job["id"] for job in one["jobs"]] == ids[:1]
    label(client, claim(client, 2), "like", "like")
    body = {"ids": ids, "wait": 20, "mode": "all"}
    every = client.post("/jobs/wait", json=body).json()
    assert [job["status"] for job in every["jobs"]] == ["succeeded"] * 3


def test_known_revisions_are_not_reported_again(client: TestClient) -> None:
    job = ask_people(client, 1)
    body = {"ids": [job["id"]], "revs": {job["id"]: job["rev"]}, "wait": 0.1}
    assert client.post("/jobs/wait", json=body).json()["jobs"] == []
    claim(client, 1)
    assert len(client.post("/jobs/wait", json=body).json()["jobs"]) == 1


def test_cancelling_keeps_what_is_answered_and_skips_the_rest(client: TestClient) -> None:
    job = ask_people(client, 3)
    leased = claim(client, 2)
    label(client, leased[:1], "like")
    over = client.post(f"/jobs/{job['id']}/cancel").json()
    assert over["status"] == "cancelled"
    assert sorted(d["status"] for d in over["data"]) == ["ok", "skipped", "skipped"]
    assert label(client, leased[1:], "like") == ["extra"]
    assert claim(client) == []
    assert client.post(f"/jobs/{job['id']}/cancel").json() == over


def test_acknowledging_twice_changes_nothing(client: TestClient) -> None:
    job = ask_people(client, 1)
    once = client.post(f"/jobs/{job['id']}/ack").json()
    assert once["acked"] and client.post(f"/jobs/{job['id']}/ack").json() == once


def test_bad_images_are_item_errors_and_the_others_survive(client: TestClient) -> None:
    broken = picture(1)[:60]
    bad = ["AAAA", "!!", broken.hex(), None]
    body = {"items": items(1)}
    body["items"] += [{"prompt": "bad", "image": {"b64": text}} for text in bad[:3]]
    body["items"].append({"prompt": "gone", "image": {"sha256": "0" * 64}})
    job = client.post("/score/human", json=body).json()
    assert [d["status"] for d in job["data"]] == ["pending", *["error"] * 4]
    codes = [d["error"]["code"] for d in job["data"][1:]]
    assert codes[0] == "image_unsupported" and codes[3] == "image_missing"
    assert len(claim(client)) == 1


def test_a_batch_of_bad_images_ends_at_once(client: TestClient) -> None:
    body = {"items": [{"prompt": "bad", "image": {"b64": "AAAA"}}]}
    answer = client.post("/score/human", json=body)
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["rewards"] == [None]


def test_images_can_be_stored_first_and_named_by_hash(client: TestClient) -> None:
    data = picture(5)
    url = f"/images/sha256-{sha256_hex(data)}"
    assert client.head(url).status_code == 404
    assert [client.put(url, content=data).status_code for _ in range(2)] == [201, 200]
    assert client.head(url).status_code == 200
    assert client.get(url).content == data
    ref = {"prompt": "named", "image": {"sha256": sha256_hex(data)}}
    job = client.post("/score/human", json={"items": [ref]}).json()
    assert job["data"][0]["status"] == "pending"
    assert client.put(f"/images/sha256-{'0' * 64}", content=data).json()["code"] == "hash_mismatch"
    text = b"no image"
    assert client.put(f"/images/sha256-{sha256_hex(text)}", content=text).status_code == 415


def test_multipart_carries_files_beside_the_request(client: TestClient) -> None:
    refs = [{"prompt": f"picture {i}", "image": {"part": f"img{i}"}} for i in range(2)]
    files = {f"img{i}": (f"{i}.png", picture(i), "image/png") for i in range(2)}
    form = {"request": json.dumps({"items": refs})}
    answer = client.post("/score/human", data=form, files=files)
    assert answer.status_code == 202, answer.text
    shown = claim(client)
    assert sorted(client.get(one["image_url"]).content for one in shown) == sorted(
        picture(i) for i in range(2)
    )
    missing = client.post("/score/human", data=form, files={"img0": files["img0"]})
    assert missing.status_code == 422 and "img1" in missing.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/score/nope", {"items": items(1)}, 404, "known: counting, human, ocr"),
        ("/score", {"items": items(1)}, 422, "name one of"),
        ("/score/ocr", {"reward": "human", "items": items(1)}, 422, "path says"),
        ("/score/ocr", {"items": items(1)}, 422, "items.0.target.text"),
        ("/score/ocr", {"items": []}, 422, "items"),
        ("/score/human", {"items": items(1), "surprise": 1}, 422, "surprise"),
        ("/score/human", {"items": items(1), "options": {}}, 422, "options"),
    ],
)
def test_refusals_name_the_value_and_the_remedy(
    client: TestClient, path: str, body: dict, status: int, words: str
) -> None:
    answer = client.post(path, json=body)
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["retryable"] is False


def test_other_failures_are_problems_too(client: TestClient) -> None:
    text = {"Content-Type": "application/json"}
    answers = [
        (client.get("/nowhere"), 404),
        (client.delete("/score"), 405),
        (client.get("/jobs/job_x"), 404),
        (client.post("/score/human", content=b"{", headers=text), 400),
        (client.post("/score/human", content=b"a=b", headers={"Content-Type": "text/plain"}), 415),
        (client.post("/label/claim", json={"n": 99}), 422),
        (client.get("/runs/unheard/stats"), 404),
    ]
    for answer, status in answers:
        assert (answer.status_code, answer.json()["status"]) == (status, status)


def test_a_body_beyond_the_limit_is_cut_off_while_it_streams(client: TestClient) -> None:
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(2 * MAX_BODY_BYTES // 2**20):
            sent += 2**20
            yield b" " * 2**20

    answer = client.post("/score", content=flood(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/label/claim"),
        ("POST", "/jobs/wait"),
        ("PATCH", "/jobs/job_x"),
        ("PATCH", "/campaigns/run"),
    ],
)
def test_a_body_without_images_is_cut_off_early(client: TestClient, method: str, path: str) -> None:
    body = b"[" + b" " * SMALL_BODY_BYTES

    def pieces() -> Iterator[bytes]:
        yield from (body[at : at + 2**16] for at in range(0, len(body), 2**16))

    for content in (body, pieces()):
        headers = {"Content-Type": "application/json"}
        answer = client.request(method, path, content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert f"limit here is {SMALL_BODY_BYTES}" in answer.json()["detail"]
    assert client.post("/golds", content=body).status_code == 415
    assert client.post("/flow-factory/ocr/compute", content=body).status_code == 415


def test_a_text_that_not_every_database_keeps_is_refused_by_all(client: TestClient) -> None:
    body = {"items": [items(1)[0] | {"prompt": "a\0b"}]}
    refused = client.post("/score/human", json=body)
    assert refused.status_code == 422 and "items.0.prompt" in refused.json()["detail"]
    assert client.get("/jobs", params={"run_id": "\0"}).status_code in (200, 422)
    assert client.get("/jobs", params={"after": "\0"}).status_code == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/label/session", rb'{"name": "\ud800"}'),
        ("/label/session", rb'{"\ud800": 1}'),
        ("/jobs/wait", rb'{"ids": ["\ud800"], "wait": 0}'),
        ("/label/undo", rb'{"client_label_id": "\ud800"}'),
        ("/score/human", rb'{"items": [{"prompt": "\ud800", "image": {"b64": "AAAA"}}]}'),
        ("/flow-factory/human/compute", rb'{"prompt": ["\ud800"], "image": ["AAAA"]}'),
    ],
)
def test_half_a_character_is_refused_and_breaks_nothing(
    client: TestClient, path: str, body: bytes
) -> None:
    refused = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code in (400, 409, 422), refused.text
    assert refused.headers["content-type"] == "application/problem+json"


def test_runs_are_counted_by_the_server(client: TestClient) -> None:
    bodies = [{"items": items(n, first=n), "run_id": "r"} for n in (1, 2)]
    sizes = [len(client.post("/score/human", json=b).request.content) for b in bodies]
    stats = client.get("/runs/r/stats").json()
    assert (stats["requests"], stats["items"], stats["bytes"]) == (2, 3, sum(sizes))
    assert stats["by_reward"]["human"]["items"] == 3
    assert stats["by_status"] == {"pending": 3}


def test_the_document_describes_the_score_request(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/score"]["post"]["requestBody"]["content"]
    assert set(operation) == {"application/json", "multipart/form-data"}
    assert "ocr" in operation["application/json"]["examples"]
    for name in ("ScoreRequest", "ScoreItem", "ImageRef", "Job", "Problem"):
        assert name in document["components"]["schemas"]
