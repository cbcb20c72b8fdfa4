"""``python -m benchmarks.peer``: a reward server as they are usually written, for comparison.

One process that scores inside an asynchronous handler: no queue, no leases, nothing is kept. This
is the contract and the shape of Flow-Factory's example server (``POST /compute`` with base64 PNG).
"""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from reward_server.scorers import ScorerItem
from reward_server.scorers.ocr import OcrOptions, OcrScorer, OcrTarget
from shared.images import decode, from_b64


class Compute(BaseModel):
    """Prompts carry what the pictures should say."""

    prompt: list[str]
    image: list[str]


class Rewards(BaseModel):
    """One number per image."""

    rewards: list[float]


def create_app() -> FastAPI:
    """The peer's application."""
    scorer = OcrScorer()
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/compute")
    async def compute(ask: Compute) -> Rewards:
        batch = [
            ScorerItem(text, decode(from_b64(image)), OcrTarget(text=text), OcrOptions())
            for text, image in zip(ask.prompt, ask.image, strict=True)
        ]
        return Rewards(rewards=[getattr(one, "reward", 0.0) for one in scorer.score(batch)])

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), port=parser.parse_args().port, log_level="warning")
