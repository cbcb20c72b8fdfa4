"""Promise: a judge behind any OpenAI-compatible endpoint becomes a reward; whatever it says that is
no score, and whatever goes wrong on the way, is a missing reward.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_server.__main__ import main
from shared.client import build_request
from shared.images import decode
from tests.support.server_setup import ENV, running

ENTRY = "judge=reward_server.scorers.openai:OpenAIScorer"


class Endpoint(ThreadingHTTPServer):
    """Speaks POST /v1/chat/completions; says how bright the image is, or what its prompt asks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.refused = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body | {"path": self.path, "auth": self.headers["Authorization"]})
        text, image = (part for part in body["messages"][0]["content"])
        if "busy at first" in text["text"] and self.server.refused < 2:
            self.server.refused += 1
            self._answer(503, {"error": "busy"})
        elif "refused" in text["text"]:
            self._answer(400, {"error": "no such model"})
        else:
            said = self._judge(text["text"], image["image_url"]["url"])
            self._answer(200, {"choices": [{"message": {"role": "assistant", "content": said}}]})

    def _judge(self, prompt: str, url: str) -> str:
        if "no opinion" in prompt:
            return "What a lovely picture."
        if "too much" in prompt:
            return "Score: 11"
        pixels = decode(base64.b64decode(url.removeprefix("data:image/png;base64,")))
        return f"On first sight Score: 1, but then.\nScore: {10 * pixels.mean() / 255:.1f}"

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_judges_last_score_is_the_reward(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"URL": endpoint.url, "MODEL": "judge-7b", "API_KEY": "sk-1"}.items():
        monkeypatch.setitem(ENV, f"REWARD_OPENAI_{name}", value)
    white, grey = (np.full((8, 8, 3), level, np.uint8) for level in (255, 51))
    prompts = ["a", "busy at first", "no opinion", "too much", "refused"]
    request = build_request("judge", prompts, [white, grey, white, white, white])
    with running(tmp_path / "data", "--scorer", ENTRY) as server, server.client() as client:
        job = client.score(request)
    assert job.rewards == [1.0, 0.2, None, None, None]
    assert job.model == "openai/judge-7b"
    errors = [item.error.message for item in job.data if item.error is not None]
    assert "What a lovely picture." in errors[0]
    assert "11 is not between 0 and 10" in errors[1]
    assert "400" in errors[2]
    assert endpoint.refused == 2 and len(endpoint.seen) == 7
    first = endpoint.seen[0]
    assert (first["path"], first["auth"]) == ("/v1/chat/completions", "Bearer sk-1")
    assert first["model"] == "judge-7b" and first["temperature"] == 0.0


def test_without_an_endpoint_the_server_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "0", "--data", str(tmp_path), "--scorer", ENTRY]) == 2
    said = capsys.readouterr().err
    assert "REWARD_OPENAI_URL: Field required; REWARD_OPENAI_MODEL: Field required" in said
