"""Whole updates equal a loop over single samples; what must not matter does not matter."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.support.small_backbone import Recording, rolled_out, small_config
from tests.support.small_updates import ITERATION, REWARDS, OneSample, naive_preference, scored
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import Batch
from trainer.tdm_r1.surrogate import update_surrogate

KL = 0.2


def naive_fake(state: Recording, batch: Batch) -> Tensor:
    total = torch.zeros(())
    for at in range(batch.samples):
        one = OneSample(state, batch, at, "fake.0", at % 4)
        v_star, weight = one.target()
        v = one.says("fake", one.renoised(one.x_s), one.t)
        total = total + weight * (v - v_star).square().mean() / batch.samples
    return total


def naive_generator(state: Recording, batch: Batch) -> Tensor:
    config, total = state.config.generator, torch.zeros(())
    for at in range(batch.samples):
        one = OneSample(state, batch, at, "generator", at % 4)
        v = one.says("generator", one.x_u, one.u)
        x0 = one.x_u - one.u * v
        x_s = (1 - one.s) * x0 + one.s * (one.x_u + (1 - one.u) * v)
        with torch.no_grad():
            x_t = one.renoised(x_s)
            with_prompt = one.says("teacher", x_t, one.t)
            without = one.says("teacher", x_t, one.t, prompt=False)
            guided = without + config.teacher_cfg * (with_prompt - without)
            teacher = x_t - one.t * guided
            g_kl = teacher - (x_t - one.t * one.says("fake", x_t, one.t))
            phi, ref = one.says("surrogate", x_t, one.t), one.says("reference", x_t, one.t)
            rho = config.rho if min(one.u, one.t) >= state.config.surrogate.t_min else 0.0
            direction = g_kl + rho * -one.t * (phi - ref)
            goal = x0 + direction / max(float((x0 - teacher).abs().mean()), 1e-3)
        total = total + 0.5 * (x0 - goal).square().mean() / batch.samples
    return total


SETTINGS = (
    "reference.kind=ema",
    "surrogate.ema=0",
    "surrogate.beta=3",
    f"surrogate.kl={KL}",
    "surrogate.kl_anchor=reference",
    "generator.rho=0.7",
    "generator.ratio_cap=1e9",
)
UPDATES: dict[str, tuple[Callable[[Recording, Batch], object], Callable[..., Tensor]]] = {
    "surrogate": (
        lambda s, b: update_surrogate(s, scored(b), ITERATION, 0.0),
        lambda s, b: naive_preference(s, b, REWARDS, "surrogate", "surrogate.0", kl=KL),
    ),
    "fake": (lambda s, b: update_fake(s, b, ITERATION, 0.0), naive_fake),
    "generator": (
        lambda s, b: update_generator(s, b, ITERATION, 0.0, rewarded=True),
        naive_generator,
    ),
}


@pytest.mark.parametrize("t_min", [0, 0.7])
@pytest.mark.parametrize("role", UPDATES)
def test_the_gradient_of_an_update_is_that_of_a_loop_over_single_samples(
    role: str, t_min: float
) -> None:
    update, naive = UPDATES[role]
    state = Recording(small_config(*SETTINGS, f"surrogate.t_min={t_min}"))
    batch = rolled_out(state)
    parameters = state.networks.parameters(role)  # type: ignore[arg-type]
    expected = torch.autograd.grad(naive(state, batch), parameters)
    update(state, batch)
    assert all(float(g.abs().max()) > 0 for g in expected)
    torch.testing.assert_close(state.gradients[role], list(expected), atol=2e-6, rtol=2e-4)


def test_weighed_like_flow_matching_every_time_counts_alike() -> None:
    state = Recording(
        small_config(*SETTINGS, "surrogate.weighting=flow", "surrogate.weight_norm=2")
    )
    batch = rolled_out(state)
    naive = naive_preference(state, batch, REWARDS, "surrogate", "surrogate.0", kl=KL, weight=0.5)
    expected = torch.autograd.grad(naive, state.networks.parameters("surrogate"))
    update_surrogate(state, scored(batch), ITERATION, 0.0)
    torch.testing.assert_close(state.gradients["surrogate"], list(expected), atol=2e-6, rtol=2e-4)


def surrogate_gradient(batch: Batch, rewards: Tensor, *overrides: str) -> list[Tensor]:
    state = Recording(small_config(*SETTINGS, *overrides))
    update_surrogate(state, scored(batch, rewards), ITERATION, 0.0)
    return state.gradients["surrogate"]


@pytest.fixture
def batch() -> Batch:
    return rolled_out(Recording(small_config(*SETTINGS)))


@pytest.mark.parametrize("std", ["group", "batch"])
def test_scale_and_offset_of_the_reward_leave_the_update_as_it_is(batch: Batch, std: str) -> None:
    rewards, how = torch.tensor(REWARDS), f"groups.advantage_std={std}"
    one = surrogate_gradient(batch, rewards, how)
    two = surrogate_gradient(batch, 7 * rewards - 2, how)
    torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)
    turned = surrogate_gradient(batch, -rewards, how)
    assert not torch.allclose(one[0], turned[0], atol=1e-4)


def test_the_order_of_samples_in_their_group_leaves_the_update_as_it_is(batch: Batch) -> None:
    rewards, order = torch.tensor(REWARDS), torch.tensor([2, 0, 3, 1])
    rows = torch.cat([order, 4 + order])
    # `samples` selects; a list of rows permutes
    shuffled = Batch(
        batch.keys,
        batch.size,
        batch.condition,
        batch.trajectory.samples(rows),  # type: ignore[arg-type]
    )
    one = surrogate_gradient(batch, rewards)
    torch.testing.assert_close(
        one, surrogate_gradient(shuffled, rewards[:, order]), atol=1e-6, rtol=1e-4
    )
    assert not torch.allclose(one[0], surrogate_gradient(shuffled, rewards)[0], atol=1e-4)


def test_a_masked_sample_changes_nothing_but_the_groups_size(batch: Batch) -> None:
    rewards = torch.tensor([[0.1, 0.9, 0.4, math.nan]])
    keys, condition = batch.keys[:1], batch.condition.rows(slice(1))
    masked = Batch(keys, 4, condition, batch.trajectory.samples(slice(4)))
    without = Batch(keys, 3, condition, batch.trajectory.samples(slice(3)))
    torch.testing.assert_close(
        surrogate_gradient(masked, rewards),
        surrogate_gradient(without, rewards[:, :3]),
        atol=1e-6,
        rtol=1e-4,
    )
