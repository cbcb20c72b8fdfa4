"""Promise: the server answers every request as its OpenAPI document says, and never with a 5xx,
whatever is asked: schemathesis asks a running server for everything the document lists.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reward_server.__main__ import main
from tests.support.server_setup import running

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_schemathesis_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    main(["keys", "create", "--name", "all", "--scope", "admin", "--data", str(data)])
    key = capsys.readouterr().out.strip()
    with running(data, "--settle", "0") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
        command += [f"{server.url}/openapi.json", "--checks", "all", "--seed", "1", "--no-color"]
        command += ["--header", f"Authorization: Bearer {key}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-3000:]
