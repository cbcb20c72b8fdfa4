"""Promise: over a real port, with real scorers, images become rewards as documented."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from shared.client import AsyncRewardClient, JobNotFound, UnknownReward, build_request
from shared.images import encode_png, to_b64
from tests.support.server_setup import Server, eventually, sign

WORDS = ["KBQ", "MAP", "RUN", "HAT", "ZEN"]


@pytest.mark.parametrize("side", [32, 64, 256])
def test_signs_are_read_at_any_size(reward_server: Server, side: int) -> None:
    request = build_request(
        "ocr",
        [f"A sign that says '{word}'" for word in WORDS],
        [sign(word, side) for word in WORDS],
        targets=[{"text": word} for word in WORDS],
        ids=WORDS,
    )
    with reward_server.client() as client:
        job = client.score(request)
    assert job.rewards == [1.0] * len(WORDS), [item.detail for item in job.data]
    assert [item.id for item in job.data] == WORDS
    assert job.model.startswith("ocr/PP-OCRv6@rapidocr-")


def test_the_reward_is_the_share_of_letters_read_back(reward_server: Server) -> None:
    targets = ["KBQ", "KBX", "XBQZ", "WWW", "kbq", "  "]
    request = build_request(
        "ocr", ["sign"] * 6, [sign("KBQ")] * 6, targets=[{"text": text} for text in targets]
    )
    with reward_server.client() as client:
        job = client.score(request)
        relaxed = request.model_copy(update={"options": {"case": "insensitive"}})
        assert client.score(relaxed).rewards[4] == 1.0
    assert job.rewards == pytest.approx([1.0, 2 / 3, 0.5, 0.0, 0.0, None])
    assert job.data[5].error is not None and job.data[5].error.code == "empty_target"
    detail = job.data[1].detail
    assert detail is not None and (detail["text"], detail["distance"]) == ("KBQ", 1)
    assert set(detail) == {"text", "distance", "confidence", "contrast"}
    assert job.status == "partial"


def test_counting_and_reading_share_a_server(reward_server: Server) -> None:
    blank = np.full((64, 64, 3), 245, np.uint8)
    target = {"include": [{"class": "circle", "count": 2}]}
    request = build_request(
        "counting", ["two circles"], [blank], targets=[target], options={"mode": "strict"}
    )
    with reward_server.client() as client:
        assert client.score(request).rewards == [0.0]


def test_one_bad_image_does_not_spoil_the_batch(reward_server: Server) -> None:
    damaged = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    images = [sign("KBQ"), b"no image at all", damaged[:4000], sign("KBQ")]
    request = build_request("ocr", ["p"] * 4, images, targets=[{"text": "KBQ"}] * 4)
    with reward_server.client() as client:
        job = client.score(request)
    assert job.rewards == [1.0, None, None, 1.0]
    assert [item.error.code for item in job.data if item.error is not None] == [
        "image_unsupported",
        "image_undecodable",
    ]


def test_one_curl_line_gives_a_first_score(reward_server: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    image = {"b64": to_b64(encode_png(sign("Hi")))}
    body = {"items": [{"prompt": "a sign", "image": image, "target": {"text": "Hi"}}]}
    command = ["curl", "-s", "-H", "Content-Type: application/json", "-d", json.dumps(body)]
    output = subprocess.run(
        [*command, f"{reward_server.url}/score/ocr"], capture_output=True, check=True, timeout=90
    )
    answer = json.loads(output.stdout)
    assert (answer["status"], answer["rewards"]) == ("succeeded", [1.0])


def test_the_server_names_its_rewards_and_counts_its_runs(reward_server: Server) -> None:
    request = build_request("ocr", ["a"], [sign("A")], targets=[{"text": "A"}], run_id="counted")
    with reward_server.client() as client:
        client.score(request)
        info = client.info()
        stats = client.run_stats("counted")
        with pytest.raises(UnknownReward) as unknown:
            client.submit(request.model_copy(update={"reward": "beauty"}))
        with pytest.raises(JobNotFound):
            client.job("job_nope")
    assert {reward.name for reward in info.rewards} == {"ocr", "counting", "human"}
    assert unknown.value.known == ["counting", "human", "ocr"]
    assert (stats.requests, stats.items, stats.by_status) == (1, 1, {"ok": 1})
    assert stats.bytes > len(encode_png(sign("A")))


def test_the_awaiting_client_waits_for_many(reward_server: Server) -> None:
    import asyncio

    async def score() -> list[float | None]:
        async with AsyncRewardClient(reward_server.url, budget_s=120) as client:
            sent = [
                await client.submit(
                    build_request("ocr", ["a"], [sign(word)], targets=[{"text": word}])
                )
                for word in WORDS
            ]
            ids = [job.id for job in sent]
            rewards: dict[str, float | None] = {}
            while len(rewards) < len(ids):
                left = [one for one in ids if one not in rewards]
                for job in (await client.wait_many(left)).jobs:
                    rewards[job.id] = job.rewards[0]
            return [rewards[one] for one in ids]

    assert asyncio.run(score()) == [1.0] * len(WORDS)


def test_a_killed_scorer_is_replaced_and_its_items_are_scored(reward_server: Server) -> None:
    words = WORDS * 8
    request = build_request(
        "ocr", words, [sign(w, 256) for w in words], targets=[{"text": w} for w in words]
    )
    with reward_server.client() as client:
        job = client.submit(request)
        eventually(lambda: client.job(job.id).status == "running")
        (pid,) = reward_server.scorer_pids()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        while not (job := client.job(job.id, wait=10)).terminal:
            assert time.monotonic() - began < 120
        assert reward_server.scorer_pids() != [pid]
    assert job.rewards == [1.0] * len(words)
