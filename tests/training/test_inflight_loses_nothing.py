"""The window of groups awaiting scores: order, overtaking, failures, and what a server forgets."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from shared.errors import ServerUnreachable
from shared.images import Pixels
from tests.support.fakes import FunctionServer, brightness
from trainer.arithmetic.flow import time_grid
from trainer.arithmetic.trajectory import Trajectory
from trainer.errors import ConfigError, UnscoredError
from trainer.rewards.groups import Group, Prompt
from trainer.rewards.inflight import InFlight, RewardTraits, known_rewards, to_pixels

MACHINE = {"brightness": RewardTraits(human=False, takes_target=False)}
HUMAN = {"human": RewardTraits(human=True, takes_target=False)}


def group(index: int, reward: str = "brightness", size: int = 2) -> Group:
    states = torch.zeros(5, size, 1, 2, 2)
    trajectory = Trajectory(time_grid(4, 2.0), states, states[1:], states[1:], 4)
    return Group(index, Prompt("a star", reward), trajectory, version=0)


def shades(*values: int) -> list[Pixels]:
    return [np.full((4, 4, 3), value, dtype=np.uint8) for value in values]


def test_rewards_come_back_in_the_order_of_samples_and_of_submission() -> None:
    server = FunctionServer(brightness)
    with server.client() as client, InFlight(client, "run", MACHINE) as inflight:
        for index in range(6):
            inflight.add(group(index), shades(0, 51 * index))
        assert inflight.count == 6
        taken = inflight.collect(4, 10.0)
        assert [s.group.index for s in taken] == [0, 1, 2, 3]
        assert taken[3].rewards.tolist() == pytest.approx([0.0, 0.6])
        assert inflight.count == 2
        assert inflight.collect(3, 0.05) == []
        assert inflight.count == 2


def test_the_request_says_run_group_step_and_options() -> None:
    server = FunctionServer(brightness)
    prompt = Prompt("a star", "brightness", "counting", {"include": []}, {"mode": "soft"})
    traits = {"brightness": RewardTraits(human=False, takes_target=True)}
    with server.client() as client, InFlight(client, "run", traits) as inflight:
        inflight.add(Group(7, prompt, group(7).trajectory, version=3), shades(1, 2))
        inflight.collect(1, 10.0)
    (request,) = server.requests
    assert (request.run_id, request.group_id, request.step) == ("run", "run/7", 3)
    assert request.options == {"mode": "soft"}
    assert [item.target for item in request.items] == [{"include": []}] * 2


def test_votes_of_people_are_fields_of_the_request_and_are_acknowledged() -> None:
    server = FunctionServer(brightness, rewards=("human",))
    with server.client() as client, InFlight(client, "run", HUMAN) as inflight:
        prompt = Prompt("a star", "human", "", {"include": []}, {"votes": 3, "min_votes": 2})
        inflight.add(Group(0, prompt, group(0).trajectory, version=0), shades(1, 2))
        inflight.collect(1, 10.0)
        limit = time.monotonic() + 10
        while not server.acked and time.monotonic() < limit:
            time.sleep(0.01)
    (request,) = server.requests
    assert (request.votes, request.min_votes, request.options) == (3, 2, None)
    assert request.items[0].target is None
    assert len(server.acked) == 1


def test_missing_rewards_are_nan_never_a_number() -> None:
    server = FunctionServer(lambda prompt, pixels: None if pixels.max() > 100 else 1.0)
    with server.client() as client, InFlight(client, "run", MACHINE) as inflight:
        inflight.add(group(0), shades(50, 200))
        (scored,) = inflight.collect(1, 10.0)
    assert scored.rewards[0] == 1.0
    assert scored.rewards[1].isnan()


def test_a_slow_group_is_overtaken_then_delivered() -> None:
    server = FunctionServer(brightness)
    server.held.add("run/0")
    with server.client() as client, InFlight(client, "run", MACHINE, 0.2) as inflight:
        for index in range(3):
            inflight.add(group(index), shades(1, 2))
        assert [s.group.index for s in inflight.collect(2, 10.0)] == [1, 2]
        start = time.monotonic()
        for index in (3, 4):
            inflight.add(group(index), shades(1, 2))
        assert [s.group.index for s in inflight.collect(2, 10.0)] == [3, 4]
        assert time.monotonic() - start < 5
        server.held.clear()
        assert [s.group.index for s in inflight.collect(1, 10.0)] == [0]
        assert inflight.count == 0


def test_what_the_server_forgot_is_submitted_again() -> None:
    server = FunctionServer(brightness)
    server.held.add("run/0")
    with server.client() as client, InFlight(client, "run", MACHINE) as inflight:
        inflight.add(group(0), shades(1, 2))
        limit = time.monotonic() + 10
        while inflight.snapshot()[0].job_id is None and time.monotonic() < limit:
            time.sleep(0.01)
        server.forget()
        server.held.clear()
        assert [s.group.index for s in inflight.collect(1, 10.0)] == [0]
    assert len(server.requests) == 2


def test_a_resumed_group_is_asked_for_by_its_job_and_not_sent_again() -> None:
    server = FunctionServer(brightness)
    server.held.add("run/0")
    with server.client() as client:
        with InFlight(client, "run", MACHINE) as first:
            first.add(group(0), shades(1, 2))
            limit = time.monotonic() + 10
            while first.snapshot()[0].job_id is None and time.monotonic() < limit:
                time.sleep(0.01)
            (entry,) = first.snapshot()
        server.held.clear()
        with InFlight(client, "run", MACHINE) as second:
            second.add(entry.group, entry.pixels, entry.job_id)
            assert [s.group.index for s in second.collect(1, 10.0)] == [0]
    assert len(server.requests) == 1


def test_a_failure_in_the_background_is_raised_where_groups_are_collected() -> None:
    server = FunctionServer(brightness)
    server.down = True
    with (
        server.client(budget_s=0.1) as client,
        InFlight(client, "run", MACHINE) as inflight,
    ):
        inflight.add(group(0), shades(1, 2))
        with pytest.raises(ServerUnreachable):
            inflight.collect(1, 30.0)
        inflight.add(group(1), shades(1, 2))
        assert [entry.group.index for entry in inflight.snapshot()] == [0, 1]
        with pytest.raises(ServerUnreachable):
            inflight.collect(1, 30.0)


def test_a_reward_that_scores_nothing_is_a_failure_that_says_why() -> None:
    luck = iter([None] * 3 + [1.0] + [None] * 4)
    server = FunctionServer(lambda prompt, pixels: next(luck))
    with (
        server.client() as client,
        InFlight(client, "run", MACHINE, unscored=4) as inflight,
    ):
        for index in range(7):  # three without a reward, one with, three without
            inflight.add(group(index, size=1), shades(1))
            (scored,) = inflight.collect(1, 10.0)
            assert bool(scored.rewards.isnan().all()) == (index != 3)
        inflight.add(group(7, size=1), shades(1))
        with pytest.raises(UnscoredError, match=r"last 4 groups for 'brightness'.*scorer_failed: "):
            inflight.collect(1, 10.0)


def test_waiting_ends_when_scores_arrive_not_at_the_timeout() -> None:
    server = FunctionServer(brightness)
    server.held.add("run/0")
    with server.client() as client, InFlight(client, "run", MACHINE) as inflight:
        inflight.add(group(0), shades(1, 2))
        threading.Timer(0.2, server.held.clear).start()
        start = time.monotonic()
        assert len(inflight.collect(1, 60.0)) == 1
        assert time.monotonic() - start < 30


def test_unknown_rewards_are_refused_by_name() -> None:
    with FunctionServer(brightness, rewards=("ocr",)).client() as client:
        with pytest.raises(ConfigError, match=r"'counting' is not known.*it has: ocr"):
            known_rewards(client, ["counting"])
        assert known_rewards(client, ["ocr"]) == {"ocr": RewardTraits(False, False)}


def test_pixels_are_rounded_as_the_pipelines_do() -> None:
    images = torch.tensor([0.0, 0.499 / 255, 0.501 / 255, 1.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    (pixels,) = to_pixels(images)
    assert pixels[:, :, 0].tolist() == [[0, 0], [1, 255]]


def test_a_group_rolled_out_anew_after_a_kill_is_a_request_of_its_own() -> None:
    server = FunctionServer(brightness)
    with server.client() as client:
        for pixels in (shades(0, 51), shades(0, 51), shades(0, 204)):  # as it was, and not quite
            with InFlight(client, "run", MACHINE) as inflight:
                inflight.add(group(0), pixels)
                (scored,) = inflight.collect(1, 10.0)
    assert len(server.requests) == 2
    assert {request.group_id for request in server.requests} == {"run/0"}
    assert scored.rewards.tolist() == pytest.approx([0.0, 0.8])
