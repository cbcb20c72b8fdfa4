"""A rollout stores what the network said, and a stored step can be taken again with gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.arithmetic.flow import time_grid
from trainer.arithmetic.trajectory import Trajectory
from trainer.config import RolloutConfig
from trainer.models.backbones import Conditioning
from trainer.models.backbones.guidance import ClassifierFree
from trainer.models.rollout import (
    own_fresh_noise,
    recompute_step,
    rollout,
    sample_guided,
)

GRID = time_grid(4, 2.0)


def condition(batch: int, value: float = 1.0) -> Conditioning:
    return Conditioning({"pooled": torch.full((batch, 3), value)})


class Network:
    """v = a x_t + t + mean of the condition; counts its calls."""

    def __init__(self, scale: float = 0.3) -> None:
        self.scale = torch.tensor(scale, requires_grad=True)
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor, c: Conditioning) -> Tensor:
        self.calls += 1
        return self.scale * x_t + (t + c["pooled"].mean(1)).view(-1, 1, 1, 1)


def noise(batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_four_steps_are_four_evaluations_and_plain_euler() -> None:
    network = Network()
    trajectory = rollout(network, noise(), condition(3), GRID)
    assert (trajectory.nfe, network.calls) == (4, 4)
    x = noise()
    for j in range(4):
        t = torch.full((3,), GRID[j])
        with torch.no_grad():
            v = network(x, t, condition(3))
        torch.testing.assert_close(trajectory.states[j], x)
        torch.testing.assert_close(trajectory.x0[j], x - GRID[j] * v)
        torch.testing.assert_close(trajectory.eps[j], x + (1 - GRID[j]) * v)
        x = x + (GRID[j + 1] - GRID[j]) * v
    torch.testing.assert_close(trajectory.final, x)
    torch.testing.assert_close(trajectory.final, trajectory.x0[-1])
    assert not trajectory.final.requires_grad


def test_stochastic_steps_use_and_store_the_fresh_noise() -> None:
    fresh = torch.stack([noise(seed=10 + j) for j in range(4)])
    trajectory = rollout(Network(), noise(), condition(3), GRID, fresh)
    torch.testing.assert_close(trajectory.eps, fresh)
    s = GRID[1]
    expected = (1 - s) * trajectory.x0[0] + s * fresh[0]
    torch.testing.assert_close(trajectory.states[1], expected)


def test_the_same_start_gets_the_same_fresh_noise_in_every_batch() -> None:
    stochastic = RolloutConfig(mode="stochastic")
    whole, part = own_fresh_noise(noise(), stochastic), own_fresh_noise(noise()[1:2], stochastic)
    assert whole is not None
    assert part is not None
    assert whole.shape == (4, 3, 2, 4, 4)
    assert torch.equal(whole[:, 1:2], part)
    drawn = torch.cat([whole.flatten(0, 1), noise()]).flatten(1)
    assert len({tuple(row.tolist()) for row in drawn}) == len(drawn)
    assert own_fresh_noise(noise(), RolloutConfig()) is None


def test_each_sample_may_look_at_its_own_step() -> None:
    trajectory = rollout(Network(), noise(), condition(3), GRID)
    step = trajectory.step(torch.tensor([1, 4, 2]))
    torch.testing.assert_close(step.u, torch.tensor([GRID[0], GRID[3], GRID[1]]))
    torch.testing.assert_close(step.s, torch.tensor([GRID[1], GRID[4], GRID[2]]))
    torch.testing.assert_close(step.x_u[1], trajectory.states[3, 1])
    torch.testing.assert_close(step.x_s[2], trajectory.states[2, 2])
    torch.testing.assert_close(step.x0[0], trajectory.x0[0, 0])
    torch.testing.assert_close(step.eps[1], trajectory.eps[3, 1])


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_step_recomputed_with_the_same_weights_is_the_stored_one(stochastic: bool) -> None:
    network = Network()
    fresh = torch.stack([noise(seed=10 + j) for j in range(4)]) if stochastic else None
    trajectory = rollout(network, noise(), condition(3), GRID, fresh)
    step = trajectory.step(torch.tensor([1, 2, 4]))
    x0, x_s = recompute_step(network, step, condition(3), stochastic=stochastic)
    torch.testing.assert_close(x0, step.x0)
    torch.testing.assert_close(x_s, step.x_s)
    torch.autograd.backward(x0.sum())
    assert network.scale.grad is not None


def test_guidance_extrapolates_and_both_passes_share_a_batch() -> None:
    network = Network()
    t = torch.full((3,), 0.5)
    rule = ClassifierFree()
    guided, plain = rule.both(network, noise(), t, condition(3), condition(1, 0.2), 4.0)
    assert network.calls == 1
    unconditional = network(noise(), t, condition(3, 0.2))
    torch.testing.assert_close(plain, network(noise(), t, condition(3)))
    torch.testing.assert_close(guided, unconditional + 4.0 * (plain - unconditional))


@pytest.mark.parametrize(("guidance", "nfe"), [(4.0, 80), (1.0, 40)])
def test_many_step_sampling_counts_both_passes_of_guidance(guidance: float, nfe: int) -> None:
    _, counted = sample_guided(
        Network(),
        noise(),
        condition(3),
        condition(1),
        steps=40,
        shift=2.0,
        guidance=guidance,
        rule=ClassifierFree(),
    )
    assert counted == nfe


def test_trajectories_are_cut_and_joined_by_samples() -> None:
    trajectory = rollout(Network(), noise(4), condition(4), GRID)
    parts = [trajectory.samples(slice(0, 1)), trajectory.samples(slice(1, 4))]
    joined = Trajectory.cat(parts)
    for name in ("states", "x0", "eps"):
        torch.testing.assert_close(getattr(joined, name), getattr(trajectory, name))
    other = rollout(Network(), noise(1), condition(1), time_grid(2, 2.0))
    with pytest.raises(ValueError, match="different time grids"):
        Trajectory.cat([trajectory, other])
