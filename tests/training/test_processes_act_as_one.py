"""Two training processes (real ones, over gloo) take the steps that one would take."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from shared.images import Pixels
from tests.support.fakes import FunctionServer, brightness
from tests.support.server_setup import free_port
from tests.support.small_backbone import Recording, rolled_out, small_config
from tests.support.small_runs import (
    PROMPTS,
    cut_short,
    final_state,
    prompt_set,
    same_bits,
    small_run,
    trained,
)
from tests.support.small_updates import scored
from trainer.config import Config
from trainer.errors import CheckpointError, ConfigError, UnscoredError
from trainer.models.networks import Role
from trainer.processes import Processes, joined_processes
from trainer.rewards.inflight import InFlight
from trainer.run.checkpoint import load_checkpoint
from trainer.run.log import read_metrics
from trainer.tdm_r1.surrogate import update_surrogate


def shared_run(model: Path, folder: Path, *overrides: str) -> Config:
    """Adam's eps is far above rounding, which it would otherwise blow up to whole steps."""
    heldout = prompt_set(folder / "heldout.jsonl", PROMPTS)
    return small_run(
        model,
        folder,
        f"heldout.prompts={heldout}",
        "heldout.count=2",
        "heldout.every=2",
        "groups.per_step=4",
        "groups.advantage_std=batch",
        "generator.ratio=norm_ema",
        "generator.rho=0.5",
        "optimizer.eps=1e-3",
        "compute.threads=1",
        *overrides,
    )


def together(work: Callable[..., None], *args: object, count: int = 2) -> None:
    """Calls work(rank, ...) in `count` processes that torchrun could have started."""
    spawn(_as_torchrun, (work, count, free_port(), *args), nprocs=count)


def _as_torchrun(
    rank: int, work: Callable[..., None], count: int, port: int, *args: object
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work(rank, *args)


def trains(rank: int, *stages: Config) -> None:
    """Trains each configuration, all but the first resumed."""
    for i, config in enumerate(stages):
        trained(config, FunctionServer(brightness), resume=i > 0)


def ended(config: Config) -> dict[str, Tensor]:
    return final_state(config.run.folder / config.run.name)


@pytest.mark.parametrize("method", ["tdm_r1", "direct_rl"])
def test_two_processes_train_what_one_trains(model: Path, tmp_path: Path, method: str) -> None:
    fixed = ["generator.ratio=fixed"] if method == "direct_rl" else []
    shared = [f"method={method}", *fixed]
    one = shared_run(model, tmp_path, "run.name=one", *shared)
    two = shared_run(model, tmp_path, "run.name=two", *shared)
    trains(0, one)
    together(trains, two)
    alone, shared_out = ended(one), ended(two)
    assert alone.keys() == shared_out.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared_out[name], tensor, rtol=1e-3, atol=1e-5, equal_nan=True)
    expected, found = (read_metrics(c.run.folder / c.run.name) for c in (one, two))
    assert len(expected) == len(found)
    for before, after in zip(expected, found, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            kind = name.split("/")[0]
            if kind in ("loss", "reward", "surrogate", "force", "groups", "heldout"):
                # g_r is a small difference of two nearly equal predictions
                rel = 2e-2 if kind == "force" else 2e-3
                assert after[name] == pytest.approx(before[name], rel=rel, abs=1e-6), name


def test_processes_resume_with_their_own_groups(model: Path, tmp_path: Path) -> None:
    whole = shared_run(model, tmp_path, "run.name=whole")
    parts = shared_run(model, tmp_path, "run.name=parts")
    together(trains, whole)
    together(trains, cut_short(parts, 1), parts)
    assert same_bits(ended(parts), ended(whole))
    checkpoint = parts.run.folder / "parts" / "checkpoints" / "step-000003"
    with pytest.raises(CheckpointError, match="written by 2 processes, and 1 would go on"):
        load_checkpoint(checkpoint, parts)
    keys = [
        {p.group.index for p in load_checkpoint(checkpoint, parts, Processes(r, 2)).pending}
        for r in range(2)
    ]
    assert keys == [{12, 13}, {14, 15}]


def is_let_down(rank: int, config: Config) -> None:
    """Trains beside a server that fails the second process alone, and goes on with another."""
    calls = iter(range(10_000))

    def fails(prompt: str, pixels: Pixels) -> float | None:
        return None if rank == 1 and next(calls) >= 12 else brightness(prompt, pixels)

    words = "scored not one picture" if rank == 1 else "another process of this run says"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UnscoredError, match=words):
        patch.setattr("trainer.run.opening.InFlight", partial(InFlight, unscored=2))
        trained(config, FunctionServer(fails))
    trained(config, FunctionServer(brightness), resume=True)


def test_what_fails_one_process_is_saved_by_all(model: Path, tmp_path: Path) -> None:
    config = shared_run(model, tmp_path, "run.iterations=4", "heldout.every=0")
    together(is_let_down, config)
    rows = read_metrics(config.run.folder / config.run.name)
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3, 4]  # the last is the end


def updates_phi(rank: int, folder: Path, rewards: list[list[list[float]]]) -> None:
    """One surrogate update on this process's groups, which may all lack a reward."""
    with joined_processes() as processes:
        state = Recording(small_config())
        state.processes = processes
        keys = range(2 * rank, 2 * rank + len(rewards[rank]))
        update_surrogate(state, scored(rolled_out(state, keys), rewards[rank]), 3, 0.0)
        save_file(role_tensors(state), folder / f"{rank}.safetensors")


def role_tensors(state: Recording, role: Role = "surrogate") -> dict[str, Tensor]:
    return {k: t.clone() for k, t in state.networks.tensors(role).items()}


def test_a_process_without_rewards_changes_nothing_and_holds_nobody_up(tmp_path: Path) -> None:
    told = [[0.1, 0.9, 0.4, 0.2], [1.0, 0.0, math.nan, 0.7]]
    together(updates_phi, tmp_path, [told, [[math.nan] * 4]])
    alone = Recording(small_config())
    before = role_tensors(alone)
    update_surrogate(alone, scored(rolled_out(alone, (0, 1)), told), 3, 0.0)
    for rank in range(2):
        after = load_file(tmp_path / f"{rank}.safetensors")
        for name, tensor in role_tensors(alone).items():
            torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6)
            assert not torch.equal(after[name], before[name])


def refuses(rank: int, config: Config, folder: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        trains(rank, config)
    (folder / f"{rank}.txt").write_text(str(refused.value))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("groups.per_step=3", "cannot be shared out evenly to 2 processes; use 4"),
        ("server.human_window=4", "choose other prompts; leave it out"),
    ],
)
def test_numbers_that_cannot_be_shared_are_refused(
    model: Path, tmp_path: Path, override: str, message: str
) -> None:
    together(refuses, shared_run(model, tmp_path, override), tmp_path)
    for rank in range(2):
        assert message in (tmp_path / f"{rank}.txt").read_text()
