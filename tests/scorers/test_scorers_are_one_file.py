"""Promise: a scorer of one's own is one file and one entry, and a wrong entry is explained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reward_server.__main__ import main
from reward_server.scorers import REGISTRY
from shared.client import RewardClient, build_request
from shared.images import encode_png
from tests.support.server_setup import ENV, ROOT, Server, sign

BRIGHTNESS = """
from pydantic import BaseModel
from reward_server.domain.outcomes import Scored

class Target(BaseModel):
    at_least: float = 0.0

class Options(BaseModel):
    pass

class Brightness:
    name, model, target, options = "brightness", "brightness/1", Target, Options

    def score(self, batch):
        means = [float(item.image.mean()) / 255 for item in batch]
        return [Scored(mean * (mean >= item.target.at_least)) for mean, item in zip(means, batch)]
"""


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_file_in_any_folder_becomes_a_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    (tmp_path / "brightness.py").write_text(BRIGHTNESS)
    monkeypatch.setitem(ENV, "PYTHONPATH", str(tmp_path))
    entry = "brightness=brightness:Brightness"
    if by == "environment":
        monkeypatch.setitem(ENV, "REWARD_SCORERS", entry)
    server = Server(tmp_path / "data", *(["--scorer", entry] if by == "option" else []))
    try:
        server.start()
        with server.client() as client:
            found = {reward.name: reward for reward in client.info().rewards}
            assert set(found) == {"brightness", "human", *REGISTRY}
            assert found["brightness"].model == "brightness/1"
            assert "at_least" in found["brightness"].target["properties"]
            assert scored(client, None) > 0.1
            assert scored(client, {"at_least": 1.0}) == 0.0
    finally:
        server.stop()


def scored(client: RewardClient, target: dict | None) -> float:
    request = build_request("brightness", ["a"], [encode_png(sign("A"))], targets=[target])
    return client.score(request).rewards[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("x=nowhere:Scorer", "scorer 'nowhere:Scorer': No module named 'nowhere'"),
        ("x=reward_server.domain.jobs:NewJob", "lacks name, model"),
        ("x=reward_server.scorers.ocr:Nope", "expected 'module:Class'"),
    ],
)
def test_an_entry_that_leads_nowhere_is_named(
    tmp_path: Path, entry: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", "0", "--data", str(tmp_path), "--scorer", entry]) == 2
    assert words in capsys.readouterr().err


def test_an_entry_of_the_wrong_form_is_named() -> None:
    command = [sys.executable, "-m", "reward_server", "serve", "--scorer", "nonsense"]
    ended = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert ended.returncode == 2 and "NAME=MODULE:CLASS" in ended.stderr
    wrong = ENV | {"REWARD_SCORERS": "nonsense"}
    ended = subprocess.run(command[:4], cwd=ROOT, env=wrong, capture_output=True, text=True)
    assert ended.returncode == 2 and "REWARD_SCORERS: 'nonsense'" in ended.stderr
