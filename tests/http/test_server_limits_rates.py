"""Promise: with a rate limit every API key gets its images a minute, whichever server it asks, and
is told when to come back before anything of the rest is accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from reward_server.__main__ import main
from reward_server.domain.rates import Rate, RateExceeded
from reward_server.settings import RATE_LIMIT, Settings
from shared.client import ServerBusy, build_request
from shared.images import sha256_hex
from shared.schema import MAX_ITEMS
from tests.support.server_setup import HandClock, ask_people, inside, items, picture, running

LIMIT = 300
"""Images a minute: one comes free every 0.2 s."""


def post(client: TestClient | httpx.Client, n: int, first: int, **more: Any) -> httpx.Response:
    return client.post("/score/human", json={"items": items(n, first)}, **more)


def test_over_tcp_a_key_is_stopped_and_told_when_to_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    keys = {}
    for name in ("one", "two"):
        main(["keys", "create", "--name", name, "--data", str(data)])
        keys[name] = capsys.readouterr().out.strip()
    with running(data, "--scorer-processes", "0", "--rate-limit", "60") as server:
        with server.client(api_key=keys["one"], budget_s=0.0) as one:
            assert one.info().limits.max_images_per_minute == 60
            one.submit(build_request("human", ["a"] * MAX_ITEMS, [picture(0)] * MAX_ITEMS))
            with pytest.raises(ServerBusy, match=r"429 rate_limited: API key 'one' may send 60"):
                one.submit(build_request("human", ["b"] * 200, [picture(0)] * 200))
            assert one.info().traffic.items == MAX_ITEMS
        with server.client(api_key=keys["two"], budget_s=0.0) as two:
            two.submit(build_request("human", ["c"] * 200, [picture(0)] * 200))
        answer = httpx.post(
            f"{server.url}/score/human",
            json={"items": items(100)},
            headers={"Authorization": f"Bearer {keys['one']}"},
            trust_env=False,
            timeout=60,
        )
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, problem["status"]) == (429, 429)
        assert problem["retryable"] and problem["images_per_minute"] == 60
        assert 1 <= int(answer.headers["retry-after"]) <= 100


def test_after_the_pause_the_same_request_is_accepted(
    tmp_path: Path, clock: HandClock, database: str
) -> None:
    with inside(tmp_path, clock, database=database, rate_limit=LIMIT) as client:
        assert post(client, 200, 0).status_code == 202
        assert post(client, 95, 200).status_code == 202
        refused = post(client, 20, 300)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        clock.now += 3.0
        assert post(client, 20, 300).status_code == 202
        empty = post(client, 1, 400)
        assert (empty.status_code, empty.headers["retry-after"]) == (429, "1")


def test_all_servers_on_one_database_count_together(
    tmp_path: Path, clock: HandClock, database: str
) -> None:
    both = {"database": database, "rate_limit": LIMIT}
    with inside(tmp_path, clock, **both) as one, inside(tmp_path, clock, **both) as two:
        assert post(one, 200, 0).status_code == 202
        assert post(two, 200, 200).status_code == 429
        assert post(two, 100, 200).status_code == 202
        assert post(one, 1, 300).status_code == 429


def test_what_is_refused_leaves_nothing_and_repeating_costs_nothing(
    tmp_path: Path, clock: HandClock, database: str
) -> None:
    with inside(tmp_path, clock, database=database, rate_limit=LIMIT) as client:
        first = ask_people(client, 200)
        assert ask_people(client, 200)["id"] == first["id"]
        assert post(client, 101, 200).status_code == 429
        stats = client.get("/info").json()
        assert (stats["traffic"]["items"], stats["pending"]["human"]) == (200, 200)
        assert post(client, 100, 200).status_code == 202
        body = b"this body is never looked at"
        json = {"Content-Type": "application/json"}
        assert client.post("/score/human", content=body, headers=json).status_code == 429


def test_stored_images_count_and_reading_is_free(tmp_path: Path, clock: HandClock) -> None:
    with inside(tmp_path, clock, rate_limit=60) as client:
        url = f"/images/sha256-{sha256_hex(picture(1))}"
        assert client.put(url, content=picture(1)).status_code == 201
        job = ask_people(client, 255)
        refused = client.put(url, content=picture(1))
        assert refused.json()["code"] == "rate_limited"
        for path in (f"/jobs/{job['id']}", "/info", "/metrics", "/readyz", url):
            assert client.get(path).status_code == 200


def test_there_is_no_limit_on_loopback_and_a_wide_one_beyond_unless_chosen(tmp_path: Path) -> None:
    assert Settings(data=tmp_path).images_per_minute is None
    assert Settings(data=tmp_path, host="0.0.0.0").images_per_minute == RATE_LIMIT
    assert Settings(data=tmp_path, host="0.0.0.0", rate_limit=0).images_per_minute is None
    assert Settings(data=tmp_path, rate_limit=7).images_per_minute == 7


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(-1e4, 1e4), st.integers(1, MAX_ITEMS)), max_size=30),
)
def test_nobody_gets_more_and_everybody_gets_in_after_the_pause(
    per_minute: int, asks: list[tuple[float, int]]
) -> None:
    """Whatever the clock does, also backwards: what was said to be the pause is enough."""
    rate, now, full_at, elapsed, granted = Rate("k", per_minute), 0.0, 0.0, 0.0, 0
    bucket = max(per_minute, MAX_ITEMS)
    for step, images in asks:
        now += step
        elapsed += max(step, 0.0)
        # A clock that was put back gives at most one bucket away.
        if step < 0:
            elapsed += bucket * 60 / per_minute
        try:
            full_at = rate.spend(full_at, images, now)
        except RateExceeded as refused:
            assert 0 < refused.wait_s <= bucket * 60 / per_minute
            now += refused.wait_s
            elapsed += refused.wait_s
            full_at = rate.spend(full_at, images, now)
        granted += images
        assert granted <= bucket + (elapsed + 0.01) * per_minute / 60
