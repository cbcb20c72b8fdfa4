"""A reward server that is a function, for tests that measure models over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from shared.client import RewardClient
from shared.images import decode, from_b64
from trainer.tiny.judge import judge

Reward = Callable[[dict[str, Any]], float | None]


def truth(item: dict[str, Any]) -> float | None:
    """Scores a picture by looking at it; every third letter of a sign counts as misread."""
    if "text" in item["target"]:
        return 2 / 3
    return float(judge(decode(from_b64(item["image"]["b64"])), item["target"]))


class FunctionAsServer:
    """The score routes of the API over a plain function, keeping what it was asked."""

    def __init__(self, reward: Reward, rewards: Sequence[str] = ("counting", "ocr")) -> None:
        self.reward, self.names = reward, rewards
        self.requests: list[dict[str, Any]] = []

    def client(self) -> RewardClient:
        return RewardClient("http://test", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return httpx.Response(200, json=self._info())
        body = json.loads(request.content)
        self.requests.append(body)
        rewards = [self.reward(item) for item in body["items"]]
        return httpx.Response(200, json=self._job(body, rewards))

    def _job(self, body: dict[str, Any], rewards: list[float | None]) -> dict[str, Any]:
        valid = [r is not None for r in rewards]
        broken = {"code": "scorer_failed", "message": "unreadable"}
        data = [
            {
                "index": i,
                "status": "ok" if ok else "error",
                "reward": r,
                "error": None if ok else broken,
            }
            for i, (r, ok) in enumerate(zip(rewards, valid, strict=True))
        ]
        counts = {"ok": sum(valid), "pending": 0, "error": len(valid) - sum(valid)}
        status = "succeeded" if all(valid) else "partial" if any(valid) else "failed"
        return {
            "id": f"job_{len(self.requests)}",
            "reward": body["reward"],
            "status": status,
            "rev": 1,
            "rewards": rewards,
            "valid": valid,
            "data": data,
            "counts": counts,
            "model": f"{body['reward']}/test",
            "created_at": 0.0,
        }

    def _info(self) -> dict[str, Any]:
        limits = dict.fromkeys(
            ("max_items", "max_body_bytes", "max_side_px", "max_pixels", "max_pending_machine"), 99
        )
        seconds = dict.fromkeys(("max_wait_s", "settle_s", "results_kept_s"), 9.0)
        return {
            "api_version": "1",
            "server_version": "test",
            "rewards": [{"name": n, "kind": "machine", "model": f"{n}/test"} for n in self.names],
            "limits": {**limits, "max_pending_human": 9, **seconds},
            "traffic": {},
            "pending": {},
            "uptime_s": 1.0,
        }
