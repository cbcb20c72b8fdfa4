"""Promise: kill -9 in mid-load loses nothing that was accepted and doubles no vote; an image that a
power failure cut short is taken anew, and with full durability none is.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from reward_server.blobs import Blobs
from shared.client import build_request
from shared.images import sha256_hex
from tests.support.server_setup import Server, inside, items, picture, running, sign

GROUPS, G, KILLS = 12, 4, 3


def test_everything_accepted_is_answered_after_kills(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--settle", "0") as server:
        stop = threading.Event()
        with ThreadPoolExecutor(6) as threads:
            machine = [threads.submit(score_group, server, i) for i in range(GROUPS)]
            clicks = threads.submit(judge, server, stop)
            jobs = [ask_people(server, i) for i in range(3)]
            for _ in range(KILLS):
                time.sleep(0.7)
                server.kill()
                server.start()
            rewards = [one.result(timeout=240) for one in machine]
            with server.client() as client:
                people = [client.job(job) for job in jobs]
                while not all(job.terminal for job in people):
                    people = [client.job(job.id, wait=10) for job in people]
            stop.set()
            votes = clicks.result(timeout=60)
        assert rewards == [[1.0] * G] * GROUPS
        judged = {(job.group_id, i): r for job in people for i, r in enumerate(job.rewards)}
        assert len(judged) == 3 * G and None not in judged.values()
        assert sorted(votes.values()) == sorted(judged.values())
        assert len(exported(server)) == 3 * G


def score_group(server: Server, number: int) -> list[float | None]:
    request = build_request(
        "ocr",
        [f"group {number}"] * G,
        [sign("KBQ")] * G,
        targets=[{"text": "KBQ"}] * G,
        group_id=f"g{number}",
    )
    with server.client(budget_s=200.0) as client:
        return client.score(request, timeout_s=200).rewards


def ask_people(server: Server, number: int) -> str:
    body = {"reward": "human", "group_id": f"p{number}", "items": items(G, first=number * G)}
    while True:
        try:
            answer = httpx.post(f"{server.url}/score", json=body, trust_env=False, timeout=60)
            return str(answer.json()["id"])
        except httpx.TransportError:
            time.sleep(0.2)


def judge(server: Server, stop: threading.Event) -> dict[str, float]:
    """Click until told to stop, resending every click until it is answered, and then once more."""
    votes: dict[str, float] = {}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        while not stop.is_set():
            leases = ask(http, "/label/claim", {"n": 2, "resume": True})["items"]
            for lease in leases:
                like = int(lease["prompt"].split()[-1]) % 2 == 0
                row = {
                    "assignment": lease["assignment"],
                    "token": lease["token"],
                    "label": "like" if like else "dislike",
                    "client_label_id": f"click-{lease['assignment']}",
                }
                for _ in range(2):
                    outcome = ask(http, "/label/submit", [row])["results"][0]["outcome"]
                    assert outcome in ("counted", "replayed")
                votes[lease["prompt"]] = float(like)
                time.sleep(0.1)
            time.sleep(0.05)
    return votes


def ask(http: httpx.Client, path: str, body: object) -> dict:
    while True:
        try:
            answer = http.post(path, json=body)
            if answer.status_code < 500:
                assert answer.is_success, answer.text
                return answer.json()
        except httpx.TransportError:
            time.sleep(0.1)


def exported(server: Server) -> list[str]:
    text = httpx.get(f"{server.url}/labels/export", trust_env=False, timeout=60).text
    return [line for line in text.splitlines() if '"counted": true' in line]


def test_with_full_durability_an_image_and_its_name_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []

    def fsync(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    Blobs(tmp_path).put(b"one")
    assert flushed == []
    blobs = Blobs(tmp_path, sync=True)
    folder = blobs.path(blobs.put(b"another")).parent
    file, *folders = flushed
    assert file.parent == folder and folders == [folder, tmp_path]


def test_an_image_that_was_cut_short_is_put_again(tmp_path: Path) -> None:
    name = sha256_hex(picture(1))
    named = {"items": [{"prompt": "a", "image": {"sha256": name}}]}
    with inside(tmp_path) as client:
        url = f"/images/sha256-{name}"
        assert client.put(url, content=picture(1)).status_code == 201
        os.truncate(tmp_path / "blobs" / name[:2] / name, 10)
        (missing,) = client.post("/score/human", json=named).json()["data"]
        assert missing["error"]["code"] == "image_missing"
        assert client.put(url, content=picture(1)).is_success
        assert client.get(url).content == picture(1)
        assert client.post("/score/human", json=named).json()["counts"]["pending"] == 1
