"""Promise: all jobs can be found again, page by page, and no answer grows without bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.server_setup import ask_people, inside


@pytest.fixture
def client(tmp_path: Path, database: str) -> Iterator[TestClient]:
    with inside(tmp_path, database=database) as opened:
        yield opened


def test_jobs_are_found_by_run_group_and_status(client: TestClient) -> None:
    for i, group in enumerate(("a", "a", "b")):
        ask_people(client, 1, first=i, run_id="r", group_id=group)
    found = client.get("/jobs", params={"run_id": "r", "group_id": "a"}).json()["jobs"]
    assert [job["group_id"] for job in found] == ["a", "a"]
    assert client.get("/jobs", params={"status": "succeeded"}).json()["jobs"] == []


@pytest.mark.parametrize("large", [False, True])
def test_pages_of_jobs_follow_each_other_without_gap_or_repetition(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    made = [ask_people(client, 2, first=2 * i, run_id="r")["id"] for i in range(7)]
    ask_people(client, 1, first=20, run_id="other")
    if large:  # of items: five fill an answer, of which a job has two
        monkeypatch.setattr("reward_server.api.jobs.MAX_ANSWERED_ITEMS", 5)
    ask, pages = {"run_id": "r", "limit": 1000 if large else 3}, []
    while True:
        page = client.get("/jobs", params=ask).json()
        pages.append([job["id"] for job in page["jobs"]])
        if page["next"] is None:
            break
        ask["after"] = page["next"]
    assert [len(page) for page in pages] == ([2, 2, 2, 1] if large else [3, 3, 1])
    assert [job for page in pages for job in page] == made[::-1]


def test_a_page_after_an_unknown_job_is_refused(client: TestClient) -> None:
    refused = client.get("/jobs", params={"after": "job_none"})
    assert refused.status_code == 422
    assert "after: no job 'job_none'" in refused.json()["detail"]


def test_changed_jobs_that_do_not_fit_one_answer_are_in_the_next(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [ask_people(client, 2, first=2 * i)["id"] for i in range(3)]
    for job_id in ids:
        client.post(f"/jobs/{job_id}/cancel")
    monkeypatch.setattr("reward_server.api.jobs.MAX_ANSWERED_ITEMS", 4)
    seen: list[str] = []
    while left := [job_id for job_id in ids if job_id not in seen]:
        answer = client.post("/jobs/wait", json={"ids": left, "mode": "all", "wait": 1}).json()
        assert 1 <= len(answer["jobs"]) <= 2
        assert len(answer["jobs"]) + len(answer["pending"]) == len(left)
        seen += [job["id"] for job in answer["jobs"]]
    assert sorted(seen) == sorted(ids)


def test_a_job_larger_than_an_answer_is_answered_all_the_same(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask_people(client, 3)
    monkeypatch.setattr("reward_server.api.jobs.MAX_ANSWERED_ITEMS", 2)
    page = client.get("/jobs").json()
    assert [len(one["data"]) for one in page["jobs"]] == [3] and page["next"] is None
    client.post(f"/jobs/{job['id']}/cancel")
    waited = client.post("/jobs/wait", json={"ids": [job["id"]]}).json()
    assert [len(one["data"]) for one in waited["jobs"]] == [3]
