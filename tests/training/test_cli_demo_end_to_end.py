"""The demo as a newcomer meets it: real server, two training processes, Ctrl-C, resume, report."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.fakes import build_sd3_folder
from tests.support.server_setup import ENV, free_port
from trainer.evaluation.results import START, TEACHER, TRAINED, load
from trainer.run.checkpoint import written_by
from trainer.run.folder import read_stats
from trainer.run.log import read_metrics
from trainer.tiny.prompt_files import path_of

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0
CONFIG = """
[run]
folder = "{runs}"
iterations = 100000
[model]
path = "{model}"
[compute]
threads = 1
[[prompts]]
file = "{composition}"
reward = "counting"
[[prompts]]
file = "{signs}"
reward = "ocr"
[heldout]
every = 0
[groups]
size = 2
per_step = 2
[generator]
frozen = 0
warmup = 0
"""


def _config(tmp_path: Path) -> Path:
    text = CONFIG.format(
        runs=tmp_path / "runs",
        model=build_sd3_folder(tmp_path / "model"),
        composition=path_of("composition", "train"),
        signs=path_of("signs", "train"),
    )
    file = tmp_path / "config.toml"
    file.write_text(text)
    return file


def _trainer(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENV, "COLUMNS": "100"},
    )


def _wait_for_updates(run: Path, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(read_metrics(run)) < count:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no updates: {process.communicate()}")
        time.sleep(0.1)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_demo_survives_ctrl_c_and_ends_with_its_report(tmp_path: Path) -> None:
    run, port = tmp_path / "runs" / "demo", free_port()
    common = ["--port", str(port), "--images-per-tag", "2", "--signs", "2", "--all-rows"]
    first = _trainer("demo", "--config", str(_config(tmp_path)), "--processes", "2", *common)
    _wait_for_updates(run, first, 2)
    assert _is_listening(port)
    first.send_signal(signal.SIGINT)
    output, error = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 130, error
    assert "make run REWARD=machine NAME=demo ARGS=--resume" in " ".join(output.split())
    assert "Traceback" not in error
    assert not _is_listening(port)
    assert [written_by(path) for path in (run / "checkpoints").iterdir()] == [2]

    done = len(read_metrics(run))
    where = ["--set", f'run.folder="{tmp_path / "runs"}"']
    enough = ["--set", f"run.iterations={done + 2}"]
    second = _trainer("demo", "--resume", *where, *enough, *common)
    output, error = second.communicate(timeout=2 * PATIENCE_S)
    assert second.returncode == 0, error
    assert output.rstrip().splitlines()[-1] == f"report: {run / 'report.html'}"
    assert not _is_listening(port)

    evaluation = load(run / "eval.json")
    assert set(evaluation.rows) == {TEACHER, START, TRAINED}
    counted = read_stats(run)
    assert counted["evaluation"].items == 3 * (6 * 2 + 2)
    # one group is in flight beyond the updates' own at most
    assert counted["training"].items >= 2 * 2 * (done + 2)
    html = (run / "report.html").read_text()
    assert f"{counted['training'].items:,}" in re.sub(r"<[^>]+>", " ", html)
    assert f"After {done + 2} iterations" in html

    exported = _trainer("export", str(run), "--out", str(tmp_path / "lora"))
    _, error = exported.communicate(timeout=PATIENCE_S)
    assert exported.returncode == 0, error
    assert (tmp_path / "lora" / "pytorch_lora_weights.safetensors").stat().st_size > 1000
    assert (
        json.loads((run / "config.json").read_text())["model"]["path"]
        in (tmp_path / "lora" / "README.md").read_text()
    )
