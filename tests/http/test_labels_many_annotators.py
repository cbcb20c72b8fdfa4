"""Promise, over HTTP with a real server on a port: eight people at once, three votes an item, who
walk away, come back late and send things twice, leave no item with a vote too many or too few.

``LABELS=900`` makes it smaller.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from reward_server.app import create_app
from reward_server.service import Service
from reward_server.settings import Settings
from tests.support.server_setup import eventually, free_port, items

PEOPLE, K = 8, 3
LABELS = int(os.environ.get("LABELS", "9000"))


class Time:
    """The server's clock: it moves only when somebody has nothing to do."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


@contextmanager
def serving(data: Path, clock: Time) -> Iterator[str]:
    """URL of the application behind a real socket, on a clock moved by hand."""
    port = free_port()
    service = Service(Settings(data=data, scorer_processes=0, settle_s=0.0, port=port), clock)
    config = uvicorn.Config(create_app(service), port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, 120.0)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class Person(threading.Thread):
    """Claims, judges, skips nothing, walks away, comes back late, sends everything twice."""

    def __init__(self, url: str, name: str, clock: Time, over: threading.Event) -> None:
        super().__init__(name=name)
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=300.0)
        self.clock, self.over = clock, over
        self.luck = random.Random(name)
        self.counted: dict[str, str] = {}
        self.late: list[list[dict[str, Any]]] = []
        self.outcomes: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with self.http:
                self._post("/label/session", {"name": self.name})
                self._work()
        except BaseException as error:
            self.failure = error
            self.over.set()

    def _post(self, path: str, body: Any) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def _work(self) -> None:
        while not self.over.is_set():
            answer = self._post("/label/claim", {"n": 32, "page": self.name})
            if answer["items"]:
                self._judge(answer["items"])
                continue
            queue = answer["queue"]
            if queue["open"] + queue["leased_elsewhere"] + queue["for_others"] == 0:
                break
            self.clock.pass_by(15.0)
            self.over.wait(0.05)
        for rows in self.late:
            self._submit(rows)

    def _judge(self, leases: list[dict[str, Any]]) -> None:
        rows = [
            {
                "assignment": one["assignment"],
                "token": one["token"],
                "label": self.luck.choice(["like", "dislike"]),
                "client_label_id": f"click-{one['assignment']}",
                "rt_ms": 300,
            }
            for one in leases
        ]
        mood = self.luck.random()
        if mood < 0.1:
            self.late.append(rows)
        elif mood < 0.15:
            refs = [{k: one[k] for k in ("assignment", "token")} for one in leases]
            self._post("/label/release", {"leases": refs})
        else:
            self._submit(rows)
            if mood > 0.8:
                self._submit(rows)
        if len(self.late) > 1 and self.luck.random() < 0.2:  # the first ones come after the end
            self._submit(self.late.pop())

    def _submit(self, rows: list[dict[str, Any]]) -> None:
        results = self._post("/label/submit", rows)["results"]
        for row, result in zip(rows, results, strict=True):
            self.outcomes[result["outcome"]] += 1
            if result["outcome"] == "counted":
                self.counted[row["assignment"]] = row["label"]


def ask(url: str, n: int) -> list[str]:
    """Jobs about n pictures, at most 250 each."""
    ids = []
    with httpx.Client(base_url=url, trust_env=False, timeout=300.0) as http:
        for first in range(0, n, 250):
            body = {"items": items(min(250, n - first), first), "votes": K, "max_skips": 99}
            answer = http.post("/score/human", json=body)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
    return ids


def test_nobody_votes_too_much_and_nothing_is_left_over(tmp_path: Path) -> None:
    clock, over = Time(), threading.Event()
    with serving(tmp_path, clock) as url:
        n = LABELS // K
        jobs = ask(url, n)
        people = [Person(url, f"person{i}", clock, over) for i in range(PEOPLE)]
        for person in people:
            person.start()
        for person in people:
            person.join()
        assert [person.failure for person in people] == [None] * PEOPLE
        with httpx.Client(base_url=url, trust_env=False, timeout=300.0) as http:
            states = [http.get(f"/jobs/{job}").json() for job in jobs]
            exported = [json.loads(one) for one in http.get("/labels/export").text.splitlines()]
    votes = [one["votes"] for state in states for one in state["data"]]
    assert [v["like"] + v["dislike"] for v in votes] == [K] * n
    assert {state["status"] for state in states} == {"succeeded"}
    counted = [one for one in exported if one["counted"]]
    voters = Counter((one["job"], one["index"]) for one in counted)
    assert len(counted) == n * K and set(voters.values()) == {K}
    assert len({(one["job"], one["index"], one["annotator"]) for one in counted}) == n * K
    given = Counter(label for person in people for label in person.counted.values())
    assert given == Counter(one["label"] for one in counted)
    outcomes = sum((person.outcomes for person in people), Counter())
    assert outcomes["counted"] == n * K and outcomes["replayed"] > 0 and outcomes["extra"] > 0
    assert outcomes["refused"] == 0
