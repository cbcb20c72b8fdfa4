"""Downloads that nobody reads stop nothing: labels go on, the server says that it is ready, and it
ends at once when it is told to.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
from starlette.testclient import TestClient

from shared.client import build_request
from shared.images import encode_png
from tests.support.server_setup import ask_people, eventually, running, sign

CLIENTS = 60


def stuck(port: int) -> socket.socket:
    """A client that asks for an export and does not read it."""
    opened = socket.create_connection(("127.0.0.1", port))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.sendall(b"GET /labels/export HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return opened


def judge_everything(http: httpx.Client) -> None:
    while items := http.post("/label/claim", json={"n": 32}).json()["items"]:
        rows = [
            {"assignment": one["assignment"], "token": one["token"], "label": "like"}
            | {"client_label_id": f"of {one['assignment']}"}
            for one in items
        ]
        assert http.post("/label/submit", json=rows).is_success


def test_sixty_clients_that_do_not_read_their_export_stop_nobody(tmp_path: Path) -> None:
    options = ("--settle", "0", "--scorer-processes", "0")
    with (
        running(tmp_path / "data", *options) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http,
        server.client() as client,
    ):
        http.post("/label/session", json={"name": "anna"})
        prompts = [f"{'long ' * 1900}{i}" for i in range(200)]
        client.submit(build_request("human", prompts, [encode_png(sign("A"))] * 200))
        judge_everything(http)
        waiting = [stuck(server.port) for _ in range(CLIENTS)]
        try:
            time.sleep(0.5)
            for _ in range(12):
                assert http.get("/label/me").is_success
                assert http.get("/readyz").is_success
            busy = http.get("/labels/export")
            assert busy.status_code == 200 or "exports are being made" in busy.json()["detail"]
            eventually(lambda: len(http.get("/labels/export").text.splitlines()) == 200)
            assert server.process is not None
            server.process.terminate()
            assert server.process.wait(30) == 0
        finally:
            for one in waiting:
                one.close()


def test_a_look_whether_it_is_ready_writes_nothing(client: TestClient) -> None:
    ask_people(client, 1)
    before = client.get("/metrics").text
    assert client.get("/readyz").json()["checks"]["database"] is True
    assert before.count("reward_") > 10
