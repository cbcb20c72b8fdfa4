"""Checkpoints: complete or absent, and refused under another configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.arithmetic.flow import time_grid
from trainer.arithmetic.trajectory import Trajectory
from trainer.config import Config, load_config
from trainer.errors import CheckpointError
from trainer.rewards.groups import Group, Prompt
from trainer.rewards.inflight import Waiting
from trainer.run.checkpoint import (
    Progress,
    flatten,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

CONFIG = Config()
TENSORS = {"lora/generator/a": torch.arange(6.0).view(2, 3), "norms": torch.zeros(2).double()}


def waiting(index: int, rewards: list[float | None] | None = None) -> Waiting:
    whole = torch.randn(5, 4, 2, 3, 3)  # one batch whose groups share their storage
    trajectory = Trajectory(time_grid(4, 2.0), whole, whole[1:], whole[:4], 4)
    prompt = Prompt("a star", "ocr", "text", {"text": "A"}, {"case": "ignore"})
    group = Group(index, prompt, trajectory.samples(slice(0, 2)), version=3)
    return Waiting(group, [], f"job_{index}", rewards)


def test_everything_comes_back(tmp_path: Path) -> None:
    progress = Progress(7, 40, 12.5, (30, 10), 0.7)
    entries = [waiting(38, [0.5, None]), waiting(39)]
    used = waiting(30, [1.0, None]).scored()
    path = save_checkpoint(tmp_path, CONFIG, progress, TENSORS, entries, [used])
    assert latest_checkpoint(tmp_path) == path
    found = load_checkpoint(path, CONFIG)
    assert found.progress == progress
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[k], TENSORS[k]) for k in TENSORS)
    for pending, entry in zip(found.pending, entries, strict=True):
        assert (pending.job_id, pending.rewards) == (entry.job_id, entry.rewards)
        assert pending.group.prompt == entry.group.prompt
        assert (pending.group.index, pending.group.version) == (entry.group.index, 3)
        assert torch.equal(pending.group.trajectory.states, entry.group.trajectory.states)
        assert pending.group.trajectory.times == entry.group.trajectory.times
    scored = found.pending[0].scored
    assert scored is not None
    assert scored.rewards[1].isnan()
    assert found.pending[1].scored is None
    (again,) = found.scored
    assert (again.given, again.group.prompt) == (used.given, used.group.prompt)
    assert torch.equal(again.group.trajectory.x0, used.group.trajectory.x0)


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, CONFIG, Progress(), TENSORS, [waiting(0)])
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for iteration in (1, 2, 10, 100):
        save_checkpoint(tmp_path, CONFIG, Progress(iteration), TENSORS, [])
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-000010", "step-000100"]


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, CONFIG, Progress(1), TENSORS, [])
    other = load_config(None, ["surrogate.lr=9e-4", "groups.size=5", "run.iterations=9"])
    with pytest.raises(CheckpointError, match=r"groups\.size: 8 there, 5 here\n.*surrogate\.lr"):
        load_checkpoint(path, other)
    longer = load_config(None, ["run.iterations=9999", "server.url=http://elsewhere"])
    assert load_checkpoint(path, longer).progress.iteration == 1


def test_a_key_that_is_newer_than_the_checkpoint_had_its_default(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, CONFIG, Progress(1), TENSORS, [])
    described = json.loads((path / "progress.json").read_text())
    del described["config"]["surrogate"]["kl"]
    (path / "progress.json").write_text(json.dumps(described))
    assert load_checkpoint(path, CONFIG).progress.iteration == 1
    with pytest.raises(CheckpointError, match=r"surrogate\.kl: 0\.01 there, 0\.5 here"):
        load_checkpoint(path, load_config(None, ["surrogate.kl=0.5"]))


def test_damaged_and_foreign_checkpoints_are_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, CONFIG, Progress(1), TENSORS, [])
    described = json.loads((path / "progress.json").read_text())
    (path / "progress.json").write_text(json.dumps({**described, "format": 99}))
    with pytest.raises(CheckpointError, match="has format 99"):
        load_checkpoint(path, CONFIG)
    groups = (path / "groups.safetensors").rename(path / "pending.safetensors")
    with pytest.raises(CheckpointError, match="has format 99"):
        load_checkpoint(path, CONFIG)
    groups.rename(path / "groups.safetensors")
    (path / "progress.json").write_text(json.dumps(described))
    (path / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path, CONFIG)
    assert latest_checkpoint(tmp_path / "nothing") is None


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from trainer.run.checkpoint import Progress, save_checkpoint
from trainer.config import Config
from trainer.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
small, big = {"a": torch.zeros(10)}, {"a": torch.zeros(1_000_000)}
save_checkpoint(folder, Config(), Progress(1), small, [])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    save_checkpoint(folder, Config(), Progress(2), big, [])
except CheckpointError as error:
    print(error)
"""


def test_a_write_that_fails_leaves_the_checkpoint_before_intact(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert "step-000001 is intact" in done.stdout
    found = load_checkpoint(tmp_path / "step-000001", CONFIG)
    assert found.tensors["a"].shape == (10,)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_nested_values_are_named_by_their_path() -> None:
    assert flatten({"a": {"b": [1, {"c": 2}]}, "d": None}) == {"a.b.0": 1, "a.b.1.c": 2, "d": None}
