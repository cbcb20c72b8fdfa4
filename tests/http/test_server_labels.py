"""Promise: people's clicks become rewards, can be undone until they are used, and stay blind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.server_setup import (
    HandClock,
    ask_people,
    claim,
    eventually,
    inside,
    items,
    job_of,
    label,
)

SETTLE_S = 5.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def client(tmp_path: Path, clock: HandClock, database: str) -> Iterator[TestClient]:
    with inside(tmp_path, clock, database=database, settle_s=SETTLE_S) as opened:
        yield opened


def settle(client: TestClient, clock: HandClock, job: dict) -> dict:
    clock.now += SETTLE_S + 0.1
    eventually(lambda: job_of(client, job)["finished_at"] is not None)
    return job_of(client, job)


def test_likes_are_one_dislikes_zero_skips_nothing(client: TestClient, clock: HandClock) -> None:
    job = ask_people(client, 3)
    assert job["label_url"].startswith("http://127.0.0.1")
    leased = {item["prompt"]: item for item in claim(client)}
    order = [leased[f"picture {i}"] for i in range(3)]
    assert label(client, order, "like", "dislike", "skip") == ["counted"] * 3
    over = settle(client, clock, job)
    assert (over["status"], over["rewards"]) == ("partial", [1.0, 0.0, None])
    assert over["valid"] == [True, True, False]
    assert [d["status"] for d in over["data"]] == ["ok", "ok", "incomplete"]
    assert over["data"][2]["votes"] == {"like": 0, "dislike": 0, "skip": 1}


def test_annotators_are_blind(client: TestClient) -> None:
    secrets = {"run_id": "run-secret", "group_id": "group-secret", "step": 424242}
    job = ask_people(client, 2, **secrets, votes=2, instruction="Is it pretty?")
    for name in ("anna", "ben"):
        client.post("/label/session", json={"name": name})
        answer = client.post("/label/claim", json={"n": 5})
        shown = answer.json()["items"]
        label(client, shown[:1], "like")
        words = answer.text + client.get("/label/me").text + client.get("/label/stats").text
        assert not [s for s in (*map(str, secrets.values()), job["id"]) if s in words]
        known = "assignment token prompt image_url width height instruction lease_s"
        assert set(shown[0]) == set(known.split())


def test_images_may_be_kept_for_ever(client: TestClient) -> None:
    ask_people(client, 1)
    answer = client.get(claim(client)[0]["image_url"])
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_undo_retracts_and_brings_the_picture_back(client: TestClient, clock: HandClock) -> None:
    job = ask_people(client, 2)
    leased = claim(client)
    label(client, leased, "like", "like")
    undone = client.post("/label/undo", json={}).json()
    assert undone["label"] == "like"
    again = undone["item"]
    assert again["prompt"] == leased[1]["prompt"]
    assert again["token"] != leased[1]["token"]
    now = job_of(client, job)
    assert (now["status"], now["counts"]["pending"]) == ("running", 1)
    assert label(client, [again], "dislike") == ["counted"]
    assert sorted(settle(client, clock, job)["rewards"]) == [0.0, 1.0]


def test_several_labels_can_be_undone_by_name(client: TestClient) -> None:
    job = ask_people(client, 3)
    leased = claim(client)
    label(client, leased, "like", "like", "skip")
    for lease in leased:
        key = f"click-{lease['assignment']}"
        assert client.post("/label/undo", json={"client_label_id": key}).json()["item"] is not None
    assert job_of(client, job)["counts"] == {"ok": 0, "pending": 3, "error": 0}
    nothing = client.post("/label/undo", json={})
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_to_undo")


def test_undo_is_refused_once_the_reward_was_used(client: TestClient, clock: HandClock) -> None:
    job = ask_people(client, 1)
    label(client, claim(client), "like")
    client.post(f"/jobs/{job['id']}/ack")
    refused = client.post("/label/undo", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "already_used")
    over = settle(client, clock, job)
    assert (over["rewards"], over["acked"]) == ([1.0], True)


def test_undo_is_refused_once_the_job_is_over(client: TestClient, clock: HandClock) -> None:
    job = ask_people(client, 1)
    label(client, claim(client), "like")
    settle(client, clock, job)
    assert client.post("/label/undo", json={}).json()["code"] == "already_used"


def test_a_label_sent_again_after_its_undo_does_not_come_back(client: TestClient) -> None:
    job = ask_people(client, 1)
    leased = claim(client)
    label(client, leased, "like")
    client.post("/label/undo", json={})
    assert label(client, leased, "like") == ["replayed"]
    assert job_of(client, job)["counts"]["pending"] == 1


def test_leases_are_kept_by_heartbeats_and_given_back(client: TestClient, clock: HandClock) -> None:
    ask_people(client, 2)
    leased = claim(client)
    refs = [{"assignment": one["assignment"], "token": one["token"]} for one in leased]
    for _ in range(3):
        clock.now += leased[0]["lease_s"] - 1
        beat = client.post("/label/heartbeat", json={"leases": refs[:1]}).json()
        assert beat == {"live": [refs[0]["assignment"]], "lost": []}
    eventually(lambda: len(client.post("/label/claim", json={"n": 9}).json()["items"]) == 1)
    released = client.post("/label/release", json={"leases": refs}).json()
    assert released == {"live": [refs[0]["assignment"]], "lost": [refs[1]["assignment"]]}


def test_a_reload_finds_its_leases_again(client: TestClient) -> None:
    ask_people(client, 5)
    before = claim(client, 3)
    assert claim(client, 3, resume=True) == before
    assert len(claim(client, 9, resume=True)) == 5


def test_a_page_that_ended_holds_nothing_and_gets_nothing(client: TestClient) -> None:
    ask_people(client, 6)
    other = claim(client, 2, page="other")
    held = claim(client, 2, page="reloaded")
    ended = {"page": "reloaded", "keep": [held[0]["assignment"]]}
    assert client.post("/label/leave", json=ended).json() == {"released": 1}
    assert claim(client, 2, page="reloaded") == []  # was on its way when the page ended
    assert client.get("/label/me").json()["leased"] == 3
    assert label(client, [*other, held[0]], "like", "like", "like") == ["counted"] * 3
    assert len(claim(client, 9, page="next")) == 3


def test_nobody_ends_the_page_of_somebody_else(client: TestClient) -> None:
    ask_people(client, 2)
    client.post("/label/session", json={"name": "anna"})
    held = claim(client, 1, page="same name")
    client.post("/label/session", json={"name": "ben"})
    assert client.post("/label/leave", json={"page": "same name"}).json() == {"released": 0}
    client.post("/label/session", json={"name": "anna"})
    assert label(client, held, "like") == ["counted"]
    assert len(claim(client, 1, page="same name")) == 1
    client.post("/label/session", json={"name": "ben"})
    left = {"page": "same name", "annotator": "anna"}  # in anna's browser, where ben is now
    assert client.post("/label/leave", json=left).json() == {"released": 1}


def test_a_picture_taken_back_belongs_to_the_page_that_asked(client: TestClient) -> None:
    ask_people(client, 1)
    label(client, claim(client, page="first"), "like")
    client.post("/label/leave", json={"page": "first"})
    assert client.post("/label/undo", json={"page": "second"}).json()["item"] is not None
    assert client.post("/label/leave", json={"page": "second"}).json() == {"released": 1}


def test_pictures_of_one_prompt_come_together(client: TestClient) -> None:
    first = [one | {"prompt": "a red bus"} for one in items(3)]
    second = [one | {"prompt": "a blue bus"} for one in items(3, 3)]
    client.post("/score/human", json={"items": [*first, *second]})
    grids = [claim(client, 16, together=True) for _ in range(2)]
    assert sorted([one["prompt"] for one in grid] for grid in grids) == [
        ["a blue bus"] * 3,
        ["a red bus"] * 3,
    ]
    assert claim(client, 16, together=True) == []


def test_pictures_judged_that_wait_for_others_are_told_apart(client: TestClient) -> None:
    ask_people(client, 2, votes=2)
    label(client, claim(client), "like", "dislike")
    queue = client.post("/label/claim", json={}).json()["queue"]
    assert (queue["open"], queue["leased_elsewhere"], queue["for_others"]) == (0, 0, 2)


def test_an_empty_queue_says_why(client: TestClient) -> None:
    assert client.post("/label/claim", json={}).json()["queue"] == {
        "open": 0,
        "leased_elsewhere": 0,
        "next_return_s": None,
        "for_others": 0,
        "pause": None,
    }
    ask_people(client, 2)
    client.post("/label/session", json={"name": "anna"})
    claim(client)
    client.post("/label/session", json={"name": "ben"})
    queue = client.post("/label/claim", json={}).json()["queue"]
    assert (queue["open"], queue["leased_elsewhere"]) == (0, 2)
    assert queue["next_return_s"] > 0


def test_labels_are_kept_for_ever_and_exported(client: TestClient) -> None:
    ask_people(client, 2, run_id="r")
    label(client, claim(client), "like", "flag")
    client.post("/label/undo", json={})
    rows = [json.loads(line) for line in client.get("/labels/export").text.splitlines()]
    assert [(r["label"], r["counted"], r["undone"], r["run_id"]) for r in rows] == [
        ("like", True, False, "r"),
        ("flag", False, True, "r"),
    ]


def test_a_flag_says_why_and_haste_is_marked(client: TestClient) -> None:
    ask_people(client, 2)
    first, second = claim(client)
    rows = [
        row(first, "flag", reason="unsafe", rt_ms=149),
        row(second, "like", rt_ms=150),
    ]
    assert client.post("/label/submit", json=rows).status_code == 200
    kept = [json.loads(line) for line in client.get("/labels/export").text.splitlines()]
    assert [(r["label"], r["reason"], r["too_fast"]) for r in kept] == [
        ("flag", "unsafe", True),
        ("like", None, False),
    ]


def test_a_reason_without_a_flag_is_refused(client: TestClient) -> None:
    ask_people(client, 1)
    refused = client.post("/label/submit", json=[row(claim(client)[0], "like", reason="unsafe")])
    assert refused.status_code == 422 and "goes with label 'flag'" in refused.text


def row(lease: dict, chosen: str, **fields: object) -> dict:
    known = {k: lease[k] for k in ("assignment", "token")}
    return known | {"label": chosen, "client_label_id": f"click-{lease['assignment']}"} | fields


def test_at_the_deadline_what_has_enough_votes_is_scored(
    client: TestClient, clock: HandClock
) -> None:
    job = ask_people(client, 2, votes=3, min_votes=1, deadline_s=60.0)
    label(client, claim(client)[:1], "like")
    clock.now += 61.0
    eventually(lambda: job_of(client, job)["finished_at"] is not None)
    over = job_of(client, job)
    assert over["status"] == "partial"
    assert sorted(over["rewards"], key=str) == [1.0, None]
    assert {d["error"]["code"] for d in over["data"] if d["error"]} == {"too_few_votes"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "rebound.example"},
    ],
)
def test_other_pages_cannot_click(client: TestClient, headers: dict[str, str]) -> None:
    ask_people(client, 1)
    if "Host" not in headers:
        client.post("/label/session", json={"name": "anna"})
    refused = client.post("/label/claim", json={}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_origin")


def test_the_page_is_served_under_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert client.get("/label/me").json()["name"] == "local"
