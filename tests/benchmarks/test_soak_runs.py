"""Promise: killing servers, scorers and the database under load loses, doubles and invents nothing.

A small version of ``python -m benchmarks.soak``, with all its parties and every kind of fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.server_setup import ENV, ROOT

SIZES = {"ocr": 24, "counting": 120, "human": 96}


def test_the_ledger_and_the_servers_agree_after_every_kind_of_fault(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--json", str(report), "--minutes", "8"]
    for reward, n in SIZES.items():
        command += [f"--{reward}", str(n)]
    command += ["--kills", "3", "--restarts", "1"]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = json.loads(report.read_text())
    assert {name: tally["answered"] for name, tally in found["items"].items()} == SIZES
    assert sum(found["faults"].values()) == 4
    assert found["votes"] >= SIZES["human"]
