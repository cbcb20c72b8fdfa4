"""Promise: a server that cannot or should not start says why and what to do; keys do their work;
a full disk takes nothing half.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from reward_server.__main__ import main
from reward_server.serve import listen
from reward_server.settings import Settings
from shared.client import RewardClient, ServerFailed, Unauthorized, build_request
from shared.images import encode_png, sha256_hex
from tests.support.server_setup import Server, eventually, inside, items, running


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """``python -m reward_server ...``, within the test's process."""

    def run(*words: str) -> Ended:
        code = main(list(words))
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


def test_a_taken_port_is_named_with_the_remedy(tmp_path: Path, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("--port", str(port), "--data", str(tmp_path))
    assert ended.code == 2
    assert f"port {port}" in ended.err and f"--port {port + 1}" in ended.err


def test_answers_leave_at_once_and_wait_for_no_acknowledgement(tmp_path: Path) -> None:
    found: list[int] = []

    async def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        found.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def call() -> None:
        listener = listen(Settings(data=tmp_path, port=0))
        async with await asyncio.start_server(meet, sock=listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            await reader.read()
            writer.close()
            await writer.wait_closed()

    asyncio.run(call())
    assert found == [1]


def test_other_machines_need_a_key_before_the_server_starts(
    tmp_path: Path, command: Command
) -> None:
    ended = command("--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path))
    assert ended.code == 2
    assert "keys create" in ended.err and "127.0.0.1" in ended.err


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = command("--port", "0", "--data", str(tmp_path / "file" / "data"))
    assert ended.code == 2
    assert "--data" in ended.err


def test_keys_open_what_their_scopes_say_until_revoked(tmp_path: Path, command: Command) -> None:
    with inside(tmp_path) as client:
        body = {"items": items(1)}
        assert client.post("/score/human", json=body).status_code == 202
        made = {
            scope: command(
                "keys", "create", "--name", scope, "--scope", scope, "--data", str(tmp_path)
            )
            for scope in ("score", "label")
        }
        keys = {scope: ended.out.split()[-1] for scope, ended in made.items()}

        def ask(path: str, scope: str) -> int:
            headers = {"Authorization": f"Bearer {keys[scope]}"}
            return client.post(
                path, json=body if "score" in path else {}, headers=headers
            ).status_code

        assert client.post("/score/human", json=body).status_code == 401
        for path in ("/score", "/golds", "/flow-factory/ocr/compute"):
            unread = client.post(path, content=b"{", headers={"Content-Type": "application/json"})
            assert unread.status_code == 401
        assert (ask("/score/human", "score"), ask("/score/human", "label")) == (202, 403)
        assert (ask("/label/claim", "label"), ask("/label/claim", "score")) == (200, 403)
        assert client.get("/labels/export").status_code == 401
        keys["wrong"] = keys["score"] + "x"
        assert ask("/score/human", "wrong") == 401
        listed = command("keys", "list", "--data", str(tmp_path)).out
        assert "score" in listed and keys["score"] not in listed
        assert keys["score"].encode() not in (tmp_path / "queue.sqlite3").read_bytes()
        command("keys", "revoke", "--name", "score", "--data", str(tmp_path))
        assert ask("/score/human", "score") == 401


def test_an_invite_signs_in_and_cookies_open_no_other_door(
    tmp_path: Path, command: Command
) -> None:
    command("keys", "create", "--name", "trainer", "--data", str(tmp_path))
    made = command("invite", "create", "--name", "anna", "--data", str(tmp_path)).out.split()[-1]
    with inside(tmp_path) as client:
        assert client.post("/label/claim", json={}).status_code == 401
        assert client.get("/", params={"invite": "inv_wrong"}).status_code == 401
        link = made.partition("/?")[2]
        assert client.get(f"/?{link}", follow_redirects=False).status_code == 303
        assert client.get("/label/me").json()["name"] == "anna"
        assert client.post("/score/human", json={"items": items(1)}).status_code == 401
        command("invite", "revoke", "--name", "anna", "--data", str(tmp_path))
        assert client.get("/label/me").status_code == 401


def test_a_wrong_key_is_explained_to_the_client(tmp_path: Path, command: Command) -> None:
    command("keys", "create", "--name", "trainer", "--data", str(tmp_path / "data"))
    with running(tmp_path / "data", "--scorer-processes", "0") as server:
        client = RewardClient(server.url, api_key="rsk_wrong")
        with client, pytest.raises(Unauthorized, match="keys create"):
            client.info()
        assert server.stop() == 0


def test_a_full_disk_takes_nothing_half(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = encode_png(rng.integers(0, 256, (900, 900, 3), dtype=np.uint8))
    small = encode_png(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    with running(tmp_path / "data", "--scorer-processes", "0") as server:
        assert server.process is not None
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2**21, 2**21))
        with server.client(budget_s=0.0) as client:
            with pytest.raises(ServerFailed, match="507 disk_full"):
                client.submit(build_request("human", ["a", "b"], [small, big]))
            assert client.info().traffic.items == 0
            with pytest.raises(ServerFailed, match="507 disk_full"):
                client.put_image(big)
            assert client.submit(build_request("human", ["a"], [small])).counts.pending == 1
        stored = [p.name for p in (tmp_path / "data" / "blobs").rglob("*") if p.is_file()]
        assert stored == [sha256_hex(small)]


def test_a_stop_does_not_wait_for_those_who_wait(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--scorer-processes", "0") as server:
        job = httpx.post(
            f"{server.url}/score/human", json={"items": items(1)}, trust_env=False, timeout=60
        ).json()
        url = f"{server.url}/jobs/{job['id']}?wait=60"
        curl = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import httpx; print(httpx.get({url!r}, timeout=90).status_code)",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: _connections(server) > 0)
        assert server.stop() == 0
        assert curl.communicate(timeout=60)[0].strip() == "200"


def _connections(server: Server) -> int:
    """Established TCP connections to the server's port (proc(5))."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    port = f":{server.port:04X}"
    return sum(line.split()[1].endswith(port) and line.split()[3] == "01" for line in lines)
