"""Promise: whoever is named as a job's webhook is told that it is over: once it can be reached, at
least once, signed, whatever dies in between; and what is given up is said to be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from reward_server.__main__ import main
from reward_server.domain.jobs import NewItem, NewJob
from reward_server.store import Store, jobs, outbox, tables
from reward_server.store.outbox import GIVE_UP_S
from shared.webhooks import JobMessage, verify
from tests.http.test_server_metrics import scrape
from tests.support.server_setup import (
    HandClock,
    Server,
    ask_people,
    claim,
    eventually,
    free_port,
    inside,
    items,
    label,
    running,
)

soon = partial(eventually, timeout_s=300.0)
"""Patient with a busy machine."""


@dataclass
class Receiver:
    """A real HTTP server that gives one answer, once `hold` is set, and remembers what it heard."""

    port: int
    answer: int = 200
    heard: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.heard]

    @contextmanager
    def listening(self) -> Iterator[None]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.heard.append((dict(self.headers), body))
                receiver.hold.wait(60)
                self.send_response(receiver.answer)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.hold.set()
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def receiver() -> Receiver:
    """One that answers at once; not listening yet."""
    made = Receiver(free_port())
    made.hold.set()
    return made


Register = Callable[..., str]


@pytest.fixture
def register(capsys: pytest.CaptureFixture[str]) -> Register:
    """`webhooks create`; returns the secret it printed."""

    def run(receiver: Receiver, *where: str) -> str:
        named = ["--name", "team", "--url", receiver.url]
        assert main(["webhooks", "create", *named, *where]) == 0
        return capsys.readouterr().out.strip()

    return run


def finish(client: TestClient, n: int = 1, first: int = 0) -> str:
    """Have a job with a webhook judged; its id."""
    job = ask_people(client, n, first, webhook="team", run_id="r")
    label(client, claim(client), *["like"] * n)
    return str(job["id"])


def test_the_receiver_is_told_and_can_verify(
    tmp_path: Path, database: str, receiver: Receiver, register: Register
) -> None:
    secret = register(receiver, "--database", database, "--data", str(tmp_path))
    with receiver.listening(), inside(tmp_path, database=database) as client:
        job = finish(client, 2)
        soon(lambda: len(receiver.heard) > 0)
        headers, body = receiver.heard[0]
        told = verify(secret, headers, body)
        assert (told.type, told.data.id, told.data.status) == ("job.ended", job, "succeeded")
        assert (told.data.run_id, told.data.counts.ok) == ("r", 2)
        Webhook(secret).verify(body, dict(headers))
        soon(lambda: scrape(client).get(OUTCOME["delivered"]) == 1)
        assert ("reward_webhook_waiting", "team") not in scrape(client)
    assert receiver.ids == [f"msg_{job}"]


OUTCOME = {
    outcome: ("reward_webhook_attempts_total", outcome, "team")
    for outcome in ("delivered", "failed", "given_up")
}


def test_every_end_is_told_and_only_once(
    tmp_path: Path, database: str, receiver: Receiver, register: Register
) -> None:
    register(receiver, "--database", database, "--data", str(tmp_path))
    with receiver.listening(), inside(tmp_path, database=database) as client:
        cancelled = ask_people(client, 1, webhook="team")["id"]
        for _ in range(2):
            client.post(f"/jobs/{cancelled}/cancel")
        bad = {"items": [{"prompt": "x", "image": {"b64": "AAAA"}}], "webhook": "team"}
        failed = client.post("/score/human", json=bad).json()["id"]
        ask_people(client, 1, 5)
        client.post(f"/jobs/{failed}/ack")
        soon(lambda: len(receiver.heard) == 2)
        told = [JobMessage.model_validate_json(body).data for _, body in receiver.heard]
    ends = {one.id: (one.status, one.counts.ok, one.counts.error) for one in told}
    assert ends == {cancelled: ("cancelled", 0, 1), failed: ("failed", 0, 1)}


@pytest.mark.parametrize("trouble", [0, 500, 302, 404])
def test_a_receiver_in_trouble_is_told_later(
    tmp_path: Path, clock: HandClock, receiver: Receiver, register: Register, trouble: int
) -> None:
    """0 stands for nobody there at all."""
    register(receiver, "--data", str(tmp_path))
    receiver.answer = trouble
    with inside(tmp_path, clock) as client:
        if trouble:
            with receiver.listening():
                job = finish(client)
                soon(lambda: scrape(client).get(OUTCOME["failed"]) == 1)
        else:
            job = finish(client)
            soon(lambda: scrape(client).get(OUTCOME["failed"]) == 1)
        told = scrape(client)
        assert told["reward_webhook_waiting", "team"] == 1
        receiver.answer, before = 204, len(receiver.heard)
        with receiver.listening():
            clock.now += 6.1
            soon(lambda: scrape(client).get(OUTCOME["delivered"]) == 1)
        assert receiver.ids == [f"msg_{job}"] * (before + 1)


def test_after_three_days_it_is_given_up_and_said(
    tmp_path: Path, clock: HandClock, receiver: Receiver, register: Register
) -> None:
    register(receiver, "--data", str(tmp_path))
    with inside(tmp_path, clock) as client:
        finish(client)
        for passed, failures in ((0.0, 1), (GIVE_UP_S - 60.0, 2)):
            clock.now += passed
            soon(lambda n=failures: scrape(client).get(OUTCOME["failed"]) == n)
            assert scrape(client)["reward_webhook_waiting", "team"] == 1
        clock.now += 2 * 3600.0
        soon(lambda: scrape(client).get(OUTCOME["given_up"]) == 1)
        assert ("reward_webhook_waiting", "team") not in scrape(client)
        with receiver.listening():
            clock.now += 10 * 3600.0
            job = finish(client, first=1)
            soon(lambda: len(receiver.heard) == 1)
    assert receiver.ids == [f"msg_{job}"]


def test_pauses_grow_to_an_hour(store: Store) -> None:
    store.write(outbox.create, "team", "http://127.0.0.1:9/", 0.0)
    bad = NewItem("a", error=("image_undecodable", "bad"))
    new = NewJob("j", "human", "human", "m", [bad], "f", None, 0, webhook="team")
    store.write(jobs.accept, new, 0.0, 1)
    now, pauses = 0.0, []
    while taken := store.write(outbox.take, "team", now, 8):
        assert store.write(outbox.take, "team", now, 8) == []
        if store.write(outbox.failed, taken[0], now):
            break
        began, now = now, store.read(lambda c: c.execute(select(tables.outbox.c.due_at)).scalar())
        pauses.append(now - began)
    assert GIVE_UP_S <= now <= GIVE_UP_S + 1.2 * 3600
    for n, pause in enumerate(pauses):
        usual = min(5.0 * 2**n, 3600.0)
        assert 0.8 * usual <= pause <= 1.2 * usual


def test_a_message_written_while_its_endpoint_was_revoked_is_never_sent(store: Store) -> None:
    store.write(outbox.create, "team", "http://127.0.0.1:9/", 0.0)
    bad = NewItem("a", error=("image_undecodable", "bad"))
    new = NewJob("j", "human", "human", "m", [bad], "f", None, 0, webhook="team")
    store.write(jobs.accept, new, 0.0, 1)
    message = store.read(lambda c: c.execute(select(tables.outbox)).mappings().one())
    assert store.write(outbox.revoke, "team", 1.0)
    store.write(lambda c: c.execute(tables.outbox.insert(), [dict(message)]))
    assert store.write(outbox.take, "team", 2.0, 8) == []
    assert store.read(outbox.due, 2.0) == []


def test_gone_means_never_again(
    tmp_path: Path, clock: HandClock, receiver: Receiver, register: Register
) -> None:
    register(receiver, "--data", str(tmp_path))
    receiver.answer = 410
    with receiver.listening(), inside(tmp_path, clock) as client:
        finish(client)
        soon(lambda: scrape(client).get(OUTCOME["given_up"]) == 1)
        assert ("reward_webhook_waiting", "team") not in scrape(client)


def test_two_servers_send_a_message_once(
    tmp_path: Path, database: str, receiver: Receiver, register: Register
) -> None:
    register(receiver, "--database", database, "--data", str(tmp_path))
    both = {"database": database}
    with (
        receiver.listening(),
        inside(tmp_path, **both) as one,
        inside(tmp_path, **both) as two,
    ):
        jobs = [finish((one, two)[i % 2], first=i) for i in range(20)]
        soon(lambda: len(set(receiver.ids)) == 20)
        soon(lambda: ("reward_webhook_waiting", "team") not in scrape(one))
    assert sorted(receiver.ids) == sorted(f"msg_{job}" for job in jobs)


def test_kill_9_loses_no_message(tmp_path: Path, receiver: Receiver, register: Register) -> None:
    """Once before anything was sent, and once while the receiver has it but has not answered."""
    register(receiver, "--data", str(tmp_path / "data"))
    with running(tmp_path / "data", "--scorer-processes", "0", "--settle", "0") as server:
        first = _cancelled(server, 0)
        server.kill()
        with receiver.listening():
            server.start()
            soon(lambda: len(receiver.heard) == 1)
            receiver.hold.clear()
            second = _cancelled(server, 1)
            soon(lambda: len(receiver.heard) == 2)
            server.kill()
            receiver.hold.set()
            server.start()
            soon(lambda: len(receiver.heard) == 3)
    assert receiver.ids == [f"msg_{first}", f"msg_{second}", f"msg_{second}"]


def _cancelled(server: Server, number: int) -> str:
    body = {"items": items(1, number), "webhook": "team"}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        job = str(http.post("/score/human", json=body).json()["id"])
        assert http.post(f"/jobs/{job}/cancel").json()["status"] == "cancelled"
    return job


def test_requests_can_name_registered_endpoints_only(
    tmp_path: Path, receiver: Receiver, register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data", str(tmp_path)]
    with receiver.listening(), inside(tmp_path) as client:
        for name in ("team", receiver.url, "http://169.254.169.254/latest"):
            asked = client.post("/score/human", json={"items": items(1), "webhook": name})
            assert asked.status_code == 422 and "webhook" in asked.json()["detail"]
        secret = register(receiver, *where)
        job = ask_people(client, 1, webhook="team")
        assert main(["webhooks", "list", *where]) == 0
        listed = capsys.readouterr().out
        assert receiver.url in listed and secret not in listed
        assert main(["webhooks", "revoke", "--name", "team", *where]) == 0
        assert client.post(f"/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
        asked = client.post("/score/human", json={"items": items(1, 9), "webhook": "team"})
        assert asked.status_code == 422
        assert scrape(client).get(OUTCOME["delivered"]) is None
    assert receiver.heard == []
    with pytest.raises(SystemExit):
        main(["webhooks", "create", "--name", "x", "--url", "file:///etc/passwd", *where])
    assert "no address" in capsys.readouterr().err
