"""Promise: the server's benchmark measures every figure it shows, on real servers and databases."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.server_setup import ENV, ROOT

SIZES = ("--repeats", "1", "--seconds", "2", "--requests", "8", "--queue-items", "192")
SMALL = ("--scorers", "1", "--clients", "2", "--processes", "2")
FIGURES = {
    "OCR, engines alone",
    "OCR, this server",
    "OCR, peer (one process, scores in its handler)",
    "server / engines",
    "server / peer",
    "OCR, this server, one image a request",
    "added latency at half of that, p50",
    "added latency at half of that, p99",
    "/healthz under full load, p99",
    "/healthz of the peer under full load, p99",
    *(
        f"{database}, {kind} items, {how}"
        for database in ("SQLite", "PostgreSQL")
        for kind in ("machine", "human")
        for how in ("batches of 24", "singly")
    ),
}


def test_a_small_run_has_all_figures(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.server", "--json", str(report), *SIZES, *SMALL]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = json.loads(report.read_text())
    values = {figure["name"]: figure["value"] for figure in found["figures"]}
    assert values.keys() >= FIGURES
    assert all(values[name] > 0 for name in FIGURES if "added" not in name)
    assert values["database is locked"] == 0
    assert [len(added) for added in found["raw"]["added_ms"].values()] == [8, 8]
