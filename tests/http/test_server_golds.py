"""Promise: people are checked unseen on pictures whose answer is known; who errs too often is asked
to pause and may go on; and no vote on such a picture ever reaches a reward.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reward_server.__main__ import main
from shared.images import to_b64
from shared.schema.campaigns import CampaignSettings
from tests.support.server_setup import (
    HandClock,
    Rows,
    ask_people,
    claim,
    eventually,
    inside,
    job_of,
    label,
    picture,
)

SETTLE_S = 5.0


@pytest.fixture
def client(tmp_path: Path, clock: HandClock, database: str) -> Iterator[TestClient]:
    chosen = {"settle_s": SETTLE_S, "campaign": CampaignSettings(gold_share=0.5), "onboarding": 5}
    with inside(tmp_path, clock, database=database, **chosen) as opened:
        assert opened.post("/label/session", json={}).json()["name"] == "local"
        yield opened


def add_golds(client: TestClient, n: int, first: int = 1000) -> None:
    golds = [
        {
            "prompt": f"gold {i}",
            "image": {"b64": to_b64(picture(i))},
            "answer": "like" if i % 2 else "dislike",
        }
        for i in range(first, first + n)
    ]
    answer = client.post("/golds", json={"golds": golds})
    assert answer.status_code == 200, answer.text
    assert answer.json()["added"] == n


def is_gold(lease: dict[str, Any]) -> bool:
    return str(lease["prompt"]).startswith("gold")


def right(lease: dict[str, Any]) -> str:
    if not is_gold(lease):
        return "like"
    return "like" if int(lease["prompt"].split()[1]) % 2 else "dislike"


def wrong(lease: dict[str, Any]) -> str:
    return "dislike" if right(lease) == "like" else "like"


def judge(client: TestClient, leases: Rows, how: Any) -> None:
    assert set(label(client, leases, *[how(one) for one in leases])) <= {"counted"}


def queue(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/label/me").json()["queue"]
    return found


def test_newcomers_judge_golds_first_and_then_everything(client: TestClient) -> None:
    add_golds(client, 30)
    ask_people(client, 40)
    first = claim(client, 16)
    assert len(first) == 5 and all(map(is_gold, first))
    judge(client, first, right)
    mixed = claim(client, 32)
    kinds = Counter(map(is_gold, mixed))
    assert kinds[True] > 0 and kinds[False] > 0
    assert {frozenset(one) for one in first} == {frozenset(one) for one in mixed}


def test_no_vote_on_a_gold_reaches_a_reward(client: TestClient, clock: HandClock) -> None:
    add_golds(client, 30)
    job = ask_people(client, 12)
    first = claim(client, 5)
    judge(client, first[:1], wrong)
    judge(client, first[1:], right)
    while leases := claim(client, 8):
        judge(client, leases, right)
    clock.now += SETTLE_S + 0.1
    eventually(lambda: job_of(client, job)["finished_at"] is not None)
    over = job_of(client, job)
    assert over["rewards"] == [1.0] * 12
    assert [one["votes"] for one in over["data"]] == [{"like": 1, "dislike": 0, "skip": 0}] * 12
    exported = client.get("/labels/export").text
    assert len(exported.splitlines()) == 12 and "gold" not in exported
    assert [one["id"] for one in client.get("/jobs").json()["jobs"]] == [job["id"]]
    answers = {one["prompt"]: one["answer"] for one in client.get("/golds").json()["golds"]}
    assert answers == {f"gold {i}": "like" if i % 2 else "dislike" for i in range(1000, 1030)}


def test_the_count_of_labels_does_not_give_golds_away(client: TestClient) -> None:
    add_golds(client, 5)
    ask_people(client, 3)
    judge(client, claim(client, 16), right)
    assert client.get("/label/me").json()["labels"] == 5
    judge(client, claim(client, 16), right)
    assert client.get("/label/me").json()["labels"] == 8


def test_without_golds_and_without_work_nobody_is_bothered(client: TestClient) -> None:
    ask_people(client, 2)
    leases = claim(client, 2)
    assert len(leases) == 2 and not any(map(is_gold, leases))
    judge(client, leases, right)
    add_golds(client, 5)
    assert claim(client, 16) == []


def test_who_errs_pauses_shows_it_goes_better_and_goes_on(
    client: TestClient, clock: HandClock
) -> None:
    add_golds(client, 20)
    job = ask_people(client, 4)
    judge(client, claim(client, 5), wrong)
    assert queue(client)["pause"] == "retry"
    assert claim(client, 16) == []
    who = client.get("/golds").json()["annotators"]
    assert who == [
        {"annotator": "local", "right": 0, "answered": 5, "accuracy": 0.0, "paused": True}
    ]
    clock.now += 1.0
    assert client.post("/label/continue").json()["queue"]["pause"] is None
    clock.now += 1.0
    again = claim(client, 16)
    assert len(again) == 5 and all(map(is_gold, again))
    judge(client, again, right)
    while leases := claim(client, 16):
        judge(client, leases, right)
    assert job_of(client, job)["rewards"] == [1.0] * 4


def test_once_the_golds_are_used_up_the_requester_decides(
    client: TestClient, clock: HandClock
) -> None:
    add_golds(client, 6)
    ask_people(client, 4)
    judge(client, claim(client, 5), wrong)
    assert queue(client)["pause"] == "requester"
    refused = client.post("/label/continue")
    assert refused.status_code == 409 and "would like to talk to you" in refused.json()["detail"]
    assert client.post("/annotators/nobody/continue").status_code == 404
    clock.now += 1.0
    assert client.post("/annotators/local/continue").status_code == 204
    assert queue(client)["pause"] is None and claim(client, 16) != []


def test_a_gold_taken_back_counts_no_more_and_a_new_answer_counts_at_once(
    client: TestClient,
) -> None:
    add_golds(client, 5)
    ask_people(client, 4)
    judge(client, claim(client, 5), wrong)
    golds = client.get("/golds").json()["golds"]
    for gold in golds[:2]:
        assert client.delete(f"/golds/{gold['id']}").status_code == 204
        assert client.delete(f"/golds/{gold['id']}").status_code == 404
    assert client.get("/golds").json()["annotators"][0]["answered"] == 3
    gold = golds[2]
    other = "dislike" if gold["answer"] == "like" else "like"
    same = {
        "prompt": gold["prompt"],
        "image": {"b64": to_b64(picture(int(gold["prompt"].split()[1])))},
        "answer": other,
    }
    assert client.post("/golds", json={"golds": [same]}).json() == {"added": 0, "total": 3}
    assert client.get("/golds").json()["annotators"][0]["right"] == 1


def judged(client: TestClient) -> tuple[int, int]:
    (who,) = client.get("/golds").json()["annotators"]
    return who["right"], who["answered"]


def test_the_first_answer_to_a_gold_decides_whatever_is_undone(
    client: TestClient, clock: HandClock
) -> None:
    add_golds(client, 20)
    ask_people(client, 1)
    lease, other, *_ = claim(client, 5)
    for how in (wrong, right, right):
        judge(client, [lease], how)
        clock.now += 1.0
        assert judged(client) == (0, 1)
        again = client.post("/label/undo", json={}).json()["item"]
        assert again["prompt"] == lease["prompt"] and judged(client) == (0, 1)
        lease = again
    judge(client, [other], right)
    assert judged(client) == (1, 2)
    client.post("/label/undo", json={})
    assert judged(client) == (1, 2)


def test_a_skip_is_no_answer_and_the_one_after_it_decides(client: TestClient) -> None:
    add_golds(client, 5)
    ask_people(client, 1)
    lease = claim(client, 5)[0]
    assert label(client, [lease], "skip") == ["counted"]
    judge(client, [client.post("/label/undo", json={}).json()["item"]], right)
    assert judged(client) == (1, 1)


def test_who_pauses_cannot_undo_the_answers_that_led_there(
    client: TestClient, clock: HandClock
) -> None:
    add_golds(client, 20)
    ask_people(client, 4)
    judge(client, claim(client, 5), wrong)
    assert queue(client)["pause"] == "retry"
    for ask in ({}, {"client_label_id": None}):
        refused = client.post("/label/undo", json=ask)
        assert refused.status_code == 409 and "break" in refused.json()["detail"]
    assert queue(client)["pause"] == "retry" and judged(client) == (0, 5)
    clock.now += 1.0
    client.post("/label/continue")
    clock.now += 1.0
    while (undone := client.post("/label/undo", json={})).status_code == 200:
        if (item := undone.json()["item"]) is not None:
            judge(client, [item], right)
            break
    assert judged(client) == (0, 5), "an answer from before the pause is still the first one"


def test_a_gold_that_cannot_be_shown_refuses_them_all(client: TestClient) -> None:
    good = {"prompt": "p", "image": {"b64": to_b64(picture(1))}, "answer": "like"}
    bad = good | {"image": {"b64": to_b64(b"no picture")}}
    refused = client.post("/golds", json={"golds": [good, bad]})
    assert refused.status_code == 422 and "golds[1].image" in refused.json()["detail"]
    assert client.get("/golds").json()["golds"] == []


def test_golds_come_from_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    line = {"image": "a.png", "prompt": "a red bus", "answer": "like"}
    file = tmp_path / "golds.jsonl"
    file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"prompt": "a dog"}) + "\n")
    where = ["--data", str(tmp_path / "state")]
    assert main(["gold", "add", str(file), *where]) == 0
    assert main(["gold", "list", *where]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 new golds") and "a red bus" in said and "a dog" in said
    file.write_text(json.dumps(line | {"image": "missing.png"}))
    assert main(["gold", "add", str(file), *where]) == 1
    assert "line 1" in capsys.readouterr().err
    assert main(["gold", "remove", "77", *where]) == 1
