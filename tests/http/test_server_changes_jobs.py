"""Promise: the deadline and the votes of a job can be changed until its last reward is in, and what
was voted before the change counts.
"""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from tests.support.server_setup import HandClock, ask_people, claim, eventually, job_of, label


def patch(client: TestClient, job: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = client.patch(f"/jobs/{job['id']}", json=fields)
    body: dict[str, Any] = answer.json()
    return body | {"code": answer.status_code}


def sign_in(client: TestClient, name: str) -> None:
    assert client.post("/label/session", json={"name": name}).status_code == 200


def test_fewer_votes_score_what_has_enough_and_free_the_rest(client: TestClient) -> None:
    job = ask_people(client, 2, votes=3)
    sign_in(client, "anna")
    anna = claim(client, 2)
    label(client, anna[:1], "like")
    sign_in(client, "ben")
    ben = claim(client, 2)
    now = patch(client, job, votes=1)
    assert sorted(now["rewards"], key=str) == [1.0, None] and now["status"] == "running"
    # Anna's other lease is older than Ben's: she keeps it, his is not needed any more.
    assert set(label(client, ben, "dislike", "dislike")) == {"extra"}
    sign_in(client, "anna")
    assert label(client, anna[1:], "dislike") == ["counted"]
    assert job_of(client, job)["status"] == "succeeded"


def test_more_votes_ask_more_people(client: TestClient) -> None:
    job = ask_people(client, 1)
    sign_in(client, "anna")
    anna = claim(client, 1)
    assert patch(client, job, votes=2)["rev"] > job["rev"]
    label(client, anna, "like")
    assert job_of(client, job)["rewards"] == [None]
    sign_in(client, "ben")
    label(client, claim(client, 1), "dislike")
    assert job_of(client, job)["rewards"] == [0.5]


def test_a_deadline_can_be_set_moved_and_taken_away(client: TestClient, clock: HandClock) -> None:
    job = ask_people(client, 2, deadline_s=60.0)
    label(client, claim(client, 1), "like")
    patch(client, job, deadline_s=None)
    clock.now += 3600.0
    assert job_of(client, job)["status"] == "running"
    patch(client, job, deadline_s=10.0)
    clock.now += 11.0
    eventually(lambda: job_of(client, job)["status"] == "partial")
    assert sorted(one["status"] for one in job_of(client, job)["data"]) == ["incomplete", "ok"]


def test_what_cannot_be_changed_is_refused_and_stays(client: TestClient) -> None:
    job = ask_people(client, 1, votes=3, min_votes=2)
    assert patch(client, job, votes=1)["code"] == 409
    assert patch(client, job)["code"] == 422
    assert patch(client, job, priority=5)["code"] == 422
    assert patch(client, {"id": "job_x"}, votes=1)["code"] == 404
    client.post(f"/jobs/{job['id']}/cancel")
    over = patch(client, job, votes=4)
    assert over["code"] == 409 and "cancelled" in over["detail"]
    assert job_of(client, job)["status"] == "cancelled"
