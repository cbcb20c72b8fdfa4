"""Load over HTTP: throughput of a full server, latency of a half-full one, health of both."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection

import httpx

from benchmarks.engines import GROUP
from shared.client import RewardClient
from shared.images import to_b64
from shared.request import build_request
from shared.schema import Json
from tests.support.server_setup import ENV, ROOT, eventually, free_port

PROBE_S = 0.02
"""Pause between two looks at ``/healthz``."""
READY_S = 300.0
FEWEST = 4
"""Groups without which there is no rate."""

Ask = Callable[[int], int]
"""Sends the n-th request and waits for the rewards; returns how many."""


def our_server(url: str, files: list[bytes], words: list[str], size: int = GROUP) -> Ask:
    """Groups of ``size`` by the client of this project; encoding a request is part of the cost."""
    client = RewardClient(url)

    def ask(number: int) -> int:
        index = [(number * size + i) % len(files) for i in range(size)]
        targets: list[Json | None] = [{"text": words[i]} for i in index]
        pictures = [files[i] for i in index]
        request = build_request("ocr", [f"{number}"] * size, pictures, targets=targets)
        rewards = client.score(request).rewards
        assert rewards == [1.0] * size, rewards
        return size

    return ask


def peer_server(url: str, files: list[bytes], words: list[str]) -> Ask:
    """The same groups for ``benchmarks.peer``."""
    client = httpx.Client(base_url=url, trust_env=False, timeout=600)

    def ask(number: int) -> int:
        index = [(number * GROUP + i) % len(files) for i in range(GROUP)]
        body = {
            "prompt": [words[i] for i in index],
            "image": [to_b64(files[i]) for i in index],
        }
        rewards = client.post("/compute", json=body).raise_for_status().json()["rewards"]
        assert rewards == [1.0] * GROUP, rewards
        return GROUP

    return ask


@contextmanager
def peer() -> Iterator[str]:
    """A running ``benchmarks.peer``; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.peer", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=ENV)
    try:
        eventually(lambda: _answers(url), READY_S)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False, timeout=30).is_success
    except httpx.TransportError:
        return False


def rate(ask: Ask, clients: int, seconds: float) -> float:
    """Items a second under full load, between the first and the last answer within ``seconds``.

    A machine too slow for a few answers in that time is given as long as it takes.
    """
    answers: list[tuple[float, int]] = []
    until = time.perf_counter() + seconds
    numbers = iter(range(1_000_000))
    lock = threading.Lock()

    def work() -> None:
        while time.perf_counter() < until or len(answers) < FEWEST:
            with lock:
                number = next(numbers)
            items = ask(number)
            with lock:
                answers.append((time.perf_counter(), items))

    with ThreadPoolExecutor(clients) as threads:
        for one in [threads.submit(work) for _ in range(clients)]:
            one.result()
    inside = [one for one in answers if one[0] <= until]
    if len(inside) < FEWEST:
        inside = answers[:FEWEST]
    return sum(items for _, items in inside[1:]) / (inside[-1][0] - inside[0][0])


def latencies(
    url: str, files: list[bytes], words: list[str], per_s: float, number: int
) -> list[tuple[int, float]]:
    """Picture and seconds of single-item requests that leave at an even pace of ``per_s``.

    Counted from when a request was due, so that a slow answer does not spare the next ones.
    """
    client = RewardClient(url)
    gc.freeze()  # else this process stops for 100 ms now and then, and all who are due with it
    began = time.perf_counter() + 0.1

    def ask(n: int) -> tuple[int, float]:
        due, index = began + n / per_s, n % len(files)
        time.sleep(max(0.0, due - time.perf_counter()))
        targets: list[Json | None] = [{"text": words[index]}]
        job = client.score(build_request("ocr", [f"{n}"], [files[index]], targets=targets))
        assert job.rewards == [1.0], job
        return index, time.perf_counter() - due

    with ThreadPoolExecutor(32) as threads:
        return list(threads.map(ask, range(number)))


@contextmanager
def health_of(url: str) -> Iterator[list[float]]:
    """Seconds of every look at ``/healthz`` while the block runs, taken by another process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_probe, args=(theirs, url), daemon=True)
    process.start()
    ours.recv()
    found: list[float] = []
    ours.send("begin")
    try:
        yield found
    finally:
        ours.send("end")
        found += ours.recv()
        process.join(60)


def _probe(pipe: Connection, url: str) -> None:
    times: list[float] = []
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        http.get("/healthz")
        pipe.send("ready")
        pipe.recv()
        while not pipe.poll():
            began = time.perf_counter()
            http.get("/healthz").raise_for_status()
            times.append(time.perf_counter() - began)
            time.sleep(PROBE_S)
    pipe.send(times)
