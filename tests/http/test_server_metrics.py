"""Promise: Prometheus is told what was accepted, what waits since when, how requests ended."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.support.server_setup import HandClock, ask_people, claim, inside, items, job_of


def scrape(client: TestClient) -> dict[tuple[str, ...], float]:
    """Every sample by name and label values, in the order of the labels' names."""
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    samples = [one for family in families for one in family.samples]
    return {(one.name, *(v for _, v in sorted(one.labels.items()))): one.value for one in samples}


def test_the_queue_is_told_by_reward(tmp_path: Path, database: str) -> None:
    clock = HandClock()
    with inside(tmp_path, clock, database=database) as client:
        ask_people(client, 3)
        claim(client, 2)
        clock.now += 90.0
        told = scrape(client)
    assert told["reward_accepted_requests_total", "human"] == 1
    assert told["reward_accepted_items_total", "human"] == 3
    assert told["reward_accepted_bytes_total", "human"] > 100
    assert told["reward_queue_items", "human"] == 3
    assert told["reward_queue_oldest_seconds", "human"] == 90.0
    assert told["reward_leases", "human"] == 2
    assert told["reward_scorer_processes",] == 0


def test_requests_are_counted_by_route_not_by_path(tmp_path: Path) -> None:
    with inside(tmp_path) as client:
        job_of(client, ask_people(client, 1))
        client.get("/jobs/job_x")
        client.get("/nowhere")
        client.post("/score/nope", json={"items": items(1)})
        for made_up in ("BREW", "PROPFIND"):
            client.request(made_up, "/nowhere")
        told = scrape(client)
    name = "reward_http_requests_total"
    assert told[name, "200", "GET", "/jobs/{job_id}"] == 1
    assert told[name, "404", "GET", "/jobs/{job_id}"] == 1
    assert told[name, "202", "POST", "/score/{reward}"] == 1
    assert told[name, "404", "POST", "/score/{reward}"] == 1
    assert told[name, "404", "GET", "unknown"] == 1
    assert told[name, "404", "other", "unknown"] == 2
    assert told["reward_http_request_seconds_count", "/jobs/{job_id}"] == 2


def test_a_restart_forgets_nothing_of_what_was_accepted(tmp_path: Path) -> None:
    with inside(tmp_path) as client:
        ask_people(client, 3)
    with inside(tmp_path) as client:
        assert scrape(client)["reward_accepted_items_total", "human"] == 3
