"""Replays: a label trains phi many times, the generator goes on meanwhile, and nobody is asked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

from tests.support.fakes import FunctionServer, brightness
from tests.support.small_runs import cut_short, final_state, same_bits, small_run, trained
from trainer.arithmetic.flow import time_grid
from trainer.arithmetic.trajectory import Trajectory
from trainer.config import Config, GroupsConfig
from trainer.rewards.groups import Group, Prompt, ScoredGroup
from trainer.run.log import read_metrics
from trainer.run.replay import Replay


def scored(index: int) -> ScoredGroup:
    parts = torch.zeros(5, 2, 4, 3, 3)
    trajectory = Trajectory(time_grid(4, 2.0), parts, parts[1:], parts[1:], 4)
    return ScoredGroup.of(Group(index, Prompt("a star", "human"), trajectory, 0), [1.0, None])


def filled(**values: int) -> Replay:
    replay = Replay(GroupsConfig(**values))
    replay.add(scored(i) for i in range(20))
    return replay


def indices(groups: list[ScoredGroup]) -> list[int]:
    return [one.group.index for one in groups]


def test_the_newest_groups_are_kept_up_to_the_memory() -> None:
    assert indices(filled(replays=1, memory=6).groups) == [14, 15, 16, 17, 18, 19]
    assert not filled(replays=0, memory=6).groups


def test_after_each_batch_of_new_scores_come_as_many_replays_as_asked_for() -> None:
    replay = filled(replays=2)
    drawn = [bool(replay.draw(4, seed=0, iteration=i)) for i in range(7)]
    assert drawn == [False, True, True, False, True, True, False]
    assert not Replay(GroupsConfig(replays=2)).draw(1, seed=0, iteration=1)


def test_a_replay_takes_different_groups_and_every_group_has_its_turn() -> None:
    replay, met = filled(replays=99), set()
    draws = [indices(replay.draw(4, seed=0, iteration=i)) for i in range(1, 40)]
    for first, second in pairwise(draws):
        assert len(set(first)) == 4
        assert first != second
        met |= set(first)
    assert met == set(range(20))
    assert indices(filled(replays=99).draw(4, seed=0, iteration=7)) == draws[6]


def replaying(model: Path, folder: Path, *overrides: str) -> Config:
    values = ("run.iterations=6", "server.window=0", "groups.replays=2")
    return small_run(model, folder, *values, *overrides)


def test_phi_and_generator_train_in_every_iteration_on_a_third_of_the_labels(
    model: Path, tmp_path: Path
) -> None:
    server = FunctionServer(brightness)
    rows = read_metrics(trained(replaying(model, tmp_path), server))[:6]
    assert len(server.requests) == 2 * 2  # two batches of two groups for six iterations
    assert all("grad_norm/surrogate" in row for row in rows)
    assert all("force/ratio" in row for row in rows[1:])
    assert ["reward/mean" in row for row in rows] == [True, False, False] * 2


def test_the_record_keeps_known_groups_apart_from_fresh_ones(model: Path, tmp_path: Path) -> None:
    rows = read_metrics(trained(replaying(model, tmp_path), FunctionServer(brightness)))[:6]
    names = ("surrogate/ranking_accuracy", "loss/surrogate")
    for i, row in enumerate(rows):
        for name in names:
            assert (name in row, f"replay/{name}" in row) == (i % 3 == 0, i % 3 != 0)


def test_a_run_resumed_between_replays_ends_with_the_same_bits(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    whole = trained(replaying(model, tmp_path, "run.name=whole"), server)
    parts = replaying(model, tmp_path, "run.name=parts")
    trained(cut_short(parts, 4), server)
    found = trained(parts, server, resume=True)
    assert same_bits(final_state(found, 6), final_state(whole, 6))
