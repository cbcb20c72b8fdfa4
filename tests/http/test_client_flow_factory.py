"""Promise: Flow-Factory's remote reward model works with a URL alone; it is never given a number
for a missing reward, and a batch that takes long is scored once however often it is asked for.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from reward_server.__main__ import main
from shared.images import to_b64
from tests.support.server_setup import (
    Server,
    claim,
    eventually,
    inside,
    label,
    picture,
    running,
    sign,
)

PROMPTS = ['A sign that says "KBQ"', 'A sign that says "KBX"', 'A sign that says "   "']
CIRCLE = {"tag": "counting", "include": [{"class": "circle", "count": 1}], "prompt": "a circle"}


class Peer:
    """What the protocol's own client does, and no more: no headers, blind retries, no polling."""

    def __init__(self, server_url: str, tries: int = 3) -> None:
        self.url = server_url.rstrip("/")
        self.tries = tries
        self.session = requests.Session()

    def healthy(self) -> bool:
        return self.session.get(f"{self.url}/health", timeout=60).ok

    def compute(self, prompts: list[str], images: list[Image.Image], **kwargs: Any) -> list[float]:
        payload = {
            "prompt": prompts,
            "image": [self._b64(one) for one in images],
            "video": None,
            "condition_images": None,
            "condition_videos": None,
            "kwargs": kwargs or None,
        }
        for left in reversed(range(self.tries)):
            try:
                answer = self.session.post(f"{self.url}/compute", json=payload, timeout=120)
                answer.raise_for_status()
                break
            except requests.RequestException:
                if not left:
                    raise
        data = answer.json()
        if data.get("error"):
            raise RuntimeError(data["error"])
        rewards: list[float] = data["rewards"]
        return rewards

    @staticmethod
    def _b64(image: Image.Image) -> str:
        out = io.BytesIO()
        image.save(out, "PNG")
        return base64.b64encode(out.getvalue()).decode()


@pytest.fixture
def peer(reward_server: Server) -> Peer:
    return Peer(f"{reward_server.url}/flow-factory/ocr")


def signs(n: int) -> list[Image.Image]:
    return [Image.fromarray(sign("KBQ"))] * n


def test_a_url_is_all_it_takes(peer: Peer, reward_server: Server) -> None:
    assert peer.healthy()
    assert peer.compute(PROMPTS[:2], signs(2)) == [1.0, 1.0 - 1 / 3]
    counting = Peer(f"{reward_server.url}/flow-factory/counting/")
    blank = [Image.new("RGB", (64, 64), (245, 245, 245))]
    assert counting.compute(["a circle"], blank, metadata=[CIRCLE]) == [0.0]


def test_a_missing_reward_is_an_error_with_its_reason(peer: Peer) -> None:
    with pytest.raises(RuntimeError, match=r"1 of 3 images have no reward \(2\): target.text is e"):
        peer.compute(PROMPTS, signs(3))
    payload = {"prompt": PROMPTS[:2], "image": [to_b64(picture(0))[:40], Peer._b64(signs(1)[0])]}
    answer = requests.post(f"{peer.url}/compute", json=payload, timeout=120).json()
    assert answer["rewards"] == [None, 1.0 - 1 / 3] and "image" in answer["error"]


def test_what_cannot_be_scored_is_refused(peer: Peer, reward_server: Server) -> None:
    assert not Peer(f"{reward_server.url}/flow-factory/nope").healthy()
    image = Peer._b64(signs(1)[0])
    wrong = [
        ({"prompt": ["no quotes"], "image": [image]}, "quotes no text"),
        ({"prompt": PROMPTS[:2], "image": [image]}, "2 prompts with 1 images"),
        ({"prompt": PROMPTS[:1], "image": [image], "video": [[image]]}, "video"),
        ({"prompt": PROMPTS[:1], "image": [image], "kwargs": {"metadata": [1]}}, "list of 1"),
        ({"prompt": PROMPTS[:1]}, "image"),
    ]
    for payload, words in wrong:
        answer = requests.post(f"{peer.url}/compute", json=payload, timeout=60)
        assert answer.status_code == 422 and words in answer.json()["detail"], answer.text


def test_the_key_may_stand_in_the_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "create", "--name", "team", "--data", str(tmp_path / "data")])
    key = capsys.readouterr().out.strip()
    with running(tmp_path / "data", "--scorer-processes", "0") as server:
        bare = f"{server.url}/flow-factory/ocr"
        assert not Peer(bare).healthy()
        assert not Peer(bare.replace("://", "://key:rsk_wrong@")).healthy()
        assert Peer(bare.replace("://", f"://key:{key}@")).healthy()


def test_a_batch_that_takes_long_is_one_job_however_often_it_is_asked_for(
    tmp_path: Path,
) -> None:
    body = {"prompt": ["a", "b"], "image": [to_b64(picture(i)) for i in range(2)]}
    quoted = body | {"prompt": PROMPTS[:2]}
    with inside(tmp_path, machine_wait_s=0.2) as client:
        for _ in range(3):
            assert client.post("/flow-factory/human/compute", json=body).status_code == 503
            assert client.post("/flow-factory/ocr/compute", json=quoted).status_code == 503
        assert client.get("/info").json()["pending"] == {"machine": 2, "human": 2}
        label(client, claim(client), "like", "like")
        eventually(lambda: client.get("/info").json()["pending"]["human"] == 0)
        answer = client.post("/flow-factory/human/compute", json=body)
        assert (answer.status_code, answer.json()["rewards"]) == (200, [1.0, 1.0])


def test_a_batch_that_always_takes_long_is_answered_each_time_it_is_asked_for(
    tmp_path: Path, database: str
) -> None:
    """Its job may end between two tries; and the batch may be asked for again after its answer."""
    body = {"prompt": PROMPTS[:1], "image": [to_b64(picture(1))]}
    with inside(tmp_path, machine_wait_s=0.05, database=database) as client:
        answered = []
        for number in range(1, 4):
            for _ in range(2):
                assert client.post("/flow-factory/ocr/compute", json=body).status_code == 503
            newest, *_ = known = client.get("/jobs").json()["jobs"]
            assert len(known) == number
            client.post(f"/jobs/{newest['id']}/cancel")
            answer = client.post("/flow-factory/ocr/compute", json=body)
            assert answer.status_code == 200 and "job cancelled" in answer.json()["error"]
            assert answer.json()["job"] == newest["id"]
            answered.append(newest["id"])
    assert len(set(answered)) == 3
