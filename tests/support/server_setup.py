"""A real reward server in a process of its own, and one inside the test, for the server's tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from starlette.testclient import TestClient

from reward_server.app import create_app
from reward_server.service import Service
from reward_server.settings import Settings
from shared.client import RewardClient
from shared.images import Pixels, encode_png, to_b64

ROOT = Path(__file__).resolve().parents[2]
READY_S = 300.0  # generous: the promise of 20 s holds on a machine that has time for it
# Servers are started often here: compile once per machine, even where bytecode is switched off.
BYTECODE = Path(tempfile.gettempdir()) / "reward_server_tests_bytecode"
ENV = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
ENV["PYTHONPYCACHEPREFIX"] = str(BYTECODE)
LOCAL = "http://127.0.0.1:8000"

Rows = list[dict[str, Any]]


class Process:
    """Part of a deployment in a process of its own."""

    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """SIGKILL: nothing is told, nothing is flushed."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def end(self) -> None:
        """SIGTERM if it runs; it must not outlive its test."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()


class Server(Process):
    """``python -m reward_server`` on a port of its own, which it keeps when started again."""

    def __init__(self, data: Path, *options: str, log: Path | None = None) -> None:
        self.data = data
        self.log = log or data.with_suffix(".log")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.options = options

    def start(self) -> None:
        """Start and wait until it is ready."""
        command = [sys.executable, "-m", "reward_server", "--port", str(self.port)]
        command += ["--data", str(self.data), *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=log, stderr=log)
        eventually(self._ready, READY_S)

    def client(self, **options: Any) -> RewardClient:
        """A client of this server that is patient with a busy machine."""
        return RewardClient(self.url, **({"budget_s": 120.0} | options))

    def scorer_pids(self) -> list[int]:
        """Process ids of the live scorer processes."""
        assert self.process is not None
        return children(self.process.pid)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=30).is_success
        except httpx.TransportError:
            return False


class Scorer(Process):
    """``python -m reward_server scorer`` beside whatever servers there are."""

    def __init__(self, data: Path, url: str, number: int) -> None:
        self.log = data.parent / f"scorer{number}.log"
        self._command = ["scorer", "--data", str(data), "--database", url]

    def start(self) -> None:
        """Start; it takes its work from the database as soon as it can."""
        command = [sys.executable, "-m", "reward_server", *self._command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=log, stderr=log)


@contextmanager
def running(data: Path, *options: str) -> Iterator[Server]:
    """A started server that is stopped at the end, however the block ends."""
    server = Server(data, *options)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@contextmanager
def inside(
    data: Path, clock: Callable[[], float] = time.time, **settings: Any
) -> Iterator[TestClient]:
    """The same application within the test's process; without scorers unless asked for."""
    chosen = {"scorer_processes": 0, "settle_s": 0.0} | settings
    service = Service(Settings(data=data, **chosen), clock)
    with TestClient(create_app(service), base_url=LOCAL) as client:
        yield client


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(one) for task in tasks for one in (task / "children").read_text().split()]


def eventually(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"did not come true within {timeout_s:g} s"
        time.sleep(0.05)


def sign(text: str, side: int = 48) -> Pixels:
    """A picture that says ``text`` in large letters."""
    big = Image.new("RGB", (side * 4, side * 4), (250, 225, 90))
    font = ImageFont.load_default(side * 1.4)
    ImageDraw.Draw(big).text((side * 2, side * 2), text, (20, 20, 30), font=font, anchor="mm")
    return np.asarray(big.resize((side, side), Image.Resampling.LANCZOS), dtype=np.uint8)


def picture(seed: int) -> bytes:
    """A small PNG, another one for every seed."""
    return encode_png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def items(n: int, first: int = 0) -> Rows:
    """``n`` different items for a human reward."""
    return [
        {"id": str(i), "prompt": f"picture {i}", "image": {"b64": to_b64(picture(i))}}
        for i in range(first, first + n)
    ]


def ask_people(client: TestClient, n: int, first: int = 0, **fields: Any) -> dict[str, Any]:
    """Submit ``n`` pictures for people to judge; the accepted job."""
    answer = client.post("/score/human", json={"items": items(n, first)} | fields)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def claim(client: TestClient, n: int = 16, **fields: Any) -> Rows:
    """Lease items to whoever ``client`` is."""
    answer = client.post("/label/claim", json={"n": n} | fields)
    assert answer.status_code == 200, answer.text
    leased: Rows = answer.json()["items"]
    return leased


def label(client: TestClient, leases: Sequence[dict[str, Any]], *labels: str) -> list[str]:
    """Submit one label per lease; the outcome of each."""
    rows = [
        {
            "assignment": lease["assignment"],
            "token": lease["token"],
            "label": chosen,
            "client_label_id": f"click-{lease['assignment']}",
            "rt_ms": 400,
        }
        for lease, chosen in zip(leases, labels, strict=True)
    ]
    answer = client.post("/label/submit", json=rows)
    assert answer.status_code == 200, answer.text
    return [result["outcome"] for result in answer.json()["results"]]


def job_of(client: TestClient, job: dict[str, Any], **query: Any) -> dict[str, Any]:
    """The job's present state."""
    answer = client.get(f"/jobs/{job['id']}", params=query)
    assert answer.status_code == 200, answer.text
    now: dict[str, Any] = answer.json()
    return now


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now
