"""`make run` trains in several processes that act as one, and misses none of them silently."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.support.fakes import build_sd3_folder
from tests.support.server_setup import Server
from trainer.config import Config, load_config
from trainer.launch.together import ProcessError, process_count, train_together
from trainer.run.log import read_metrics
from trainer.tiny.prompt_files import path_of


def config_for(folder: Path, *overrides: str) -> Config:
    prompts = f'[{{file="{path_of("composition", "train")}", reward="counting"}}]'
    small = ["groups.size=2", "groups.per_step=4", "heldout.every=0", "run.live_view=false"]
    named = ["run.name=test", f"run.folder={folder / 'runs'}", f"prompts={prompts}"]
    return load_config(None, [*named, *small, *overrides])


@pytest.mark.parametrize(
    ("cores", "overrides", "count"),
    [
        (1, [], 1),
        (2, [], 2),
        (3, [], 2),  # four groups are not shared out to three
        (16, [], 4),  # each takes memory
        (4, ["compute.threads=2"], 2),
        (1, ["compute.threads=2"], 1),
        (3, ["groups.per_step=6"], 3),
        (8, ["compute.device=cuda"], 1),
    ],
)
def test_there_are_as_many_processes_as_cores_if_groups_can_be_shared_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    overrides: list[str],
    count: int,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert process_count(config_for(tmp_path, *overrides), resume=False) == count


def test_a_run_is_resumed_by_as_many_processes_as_it_had(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    step = config.run.folder / "test" / "checkpoints" / "step-000003"
    step.mkdir(parents=True)
    (step / "progress.json").touch()
    for rank in (1, 2, 3):
        (step / f"process-{rank}").mkdir()
    assert process_count(config, resume=True) == 4


def test_a_process_that_is_gone_ends_the_run_and_is_named(
    tmp_path: Path, reward_server: Server
) -> None:
    config = config_for(
        tmp_path,
        "run.iterations=100000",
        "compute.threads=1",
        f"model.path={build_sd3_folder(tmp_path / 'model')}",
        f'server.url="{reward_server.url}"',
    )
    environment = dict(os.environ)

    def kill_the_other() -> None:
        while len(read_metrics(config.run.folder / "test")) < 2:
            time.sleep(0.05)
        (other,) = multiprocessing.active_children()
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)

    threading.Thread(target=kill_the_other, daemon=True).start()
    with pytest.raises(ProcessError, match=r"process 2 of 2 ended with exit code -9: .*--resume"):
        train_together(config, 2, resume=False, console=Console(file=io.StringIO()))
    assert multiprocessing.active_children() == []
    assert dict(os.environ) == environment
