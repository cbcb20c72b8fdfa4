"""phi and fake score as the authors' code trains them: every switch equals a naive loop."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from tests.support.small_backbone import Recording, SmallBackbone, rolled_out, small_config
from tests.support.small_updates import ITERATION, REWARDS, scored
from trainer.arithmetic.flow import shift_time, time_grid, unshift_time
from trainer.models.networks import build_networks
from trainer.models.rollout import rollout
from trainer.rewards.groups import advantages
from trainer.tdm_r1 import losses
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.state import Draw
from trainer.tdm_r1.surrogate import update_surrogate
from trainer.tdm_r1.targets import draw_time

DRAWS = ("target.draws=2", "target.times=shifted", "target.t_max=1.0", "rollout.flow_shift=3")
PHI = (
    *DRAWS,
    "rollout.solver=dpmsolver++",
    "surrogate.target=bridge",
    "surrogate.weighting=flow",
    "surrogate.steps=late",
    "surrogate.step_weight=late",
    "surrogate.beta=3",
    "surrogate.kl=0.2",
    "surrogate.ema=0",
    "surrogate.t_min=0.3",
    "groups.advantage_std=global",
    "groups.advantage_clip=1.2",
)


def drawn(state: Recording, role: str, *, phi: bool) -> list[Draw]:
    batch = rolled_out(state)
    if not phi:
        return state.draws(batch, ITERATION, role, "full")
    t_min = state.config.surrogate.t_min
    names = [role, f"{role}.1"]
    return [
        state.draw(batch, ITERATION, name, "full", shared=True, t_min=t_min, late=True)
        for name in names
    ]


def naive_advantages() -> list[list[float]]:
    """By the standard deviation of all rewards there are, not beyond 1.2; NaN where missing."""
    there = [r for group in REWARDS for r in group if not math.isnan(r)]
    mean = sum(there) / len(there)
    std = math.sqrt(sum((r - mean) ** 2 for r in there) / len(there))
    found = []
    for group in REWARDS:
        own = [r for r in group if not math.isnan(r)]
        centre = sum(own) / len(own)
        found.append([min(max((r - centre) / std, -1.2), 1.2) for r in group])
    return found


def test_global_advantages_are_those_of_a_loop_and_never_mix_rewards() -> None:
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    got = advantages(rewards, ["a", "a"], std="global", clip=1.2)
    for row, expected, valid in zip(got.values, naive_advantages(), got.valid, strict=True):
        for value, wanted, there in zip(row, expected, valid, strict=True):
            assert float(value) == pytest.approx(wanted if there else 0.0)
    assert float(got.values.abs().max()) == 1.2
    alone = advantages(rewards[:1], ["a"], std="global")
    beside = advantages(rewards, ["a", "b"], std="global")
    torch.testing.assert_close(alone.values[0], beside.values[0])


def naive_phi(state: Recording, clip: float | None, drift: float | None) -> tuple[Tensor, int]:
    """(the loss, how many samples gave no gradient of their own)."""
    batch, config = rolled_out(state), state.config.surrogate
    condition, total, stopped = batch.condition.repeat(batch.size), torch.zeros(()), 0
    there = sum(not math.isnan(r) for group in REWARDS for r in group)
    for draw in drawn(state, "surrogate.0", phi=True):
        for g, of_group in enumerate(naive_advantages()):
            weight = int(draw.j[batch.size * g]) / 4
            valid = [i for i, a in enumerate(of_group) if not math.isnan(a)]
            d, d_ref, d_old, apart = {}, {}, {}, {}
            for i in valid:
                at = batch.size * g + i
                row, own = slice(at, at + 1), condition.rows(slice(at, at + 1))
                s, t, e = draw.step.s[row], draw.t[row], draw.e[row]
                x_s, a = draw.step.x_s[row], (1 - t) / (1 - s)
                b = (t**2 - s**2 * a**2).sqrt()
                x_t = a * x_s + b * e
                # the authors' limit eta -> 0 of Eq. 9
                v_star = -x_s / (1 - s) + e / b * (t + s**2 * a / (1 - s))
                v = state.networks.velocity("surrogate")(x_t, t, own)
                with torch.no_grad():
                    teacher = state.networks.velocity("teacher")(x_t, t, own)
                    old = teacher
                    if "surrogate_old" in state.networks.specs:
                        old = state.networks.velocity("surrogate_old")(x_t, t, own)
                d[i] = (v - v_star).square().mean()
                d_ref[i] = (teacher - v_star).square().mean()
                d_old[i] = (old - v_star).square().mean()
                apart[i] = (v - teacher).square().mean()
            moved = sum(float(apart[i].detach()) for i in valid) / len(valid)
            s_g = torch.zeros(())
            for i in valid:
                way, still = 1 if of_group[i] > 0 else -1, False
                if clip is not None:
                    still = way * (math.exp(float(d_old[i] - d[i].detach())) - 1) > clip
                if drift is not None and moved > drift:
                    still = still or way * float(d_ref[i] - d[i].detach()) > 0
                stopped += still
                pulled = d[i].detach() if still else d[i]
                s_g = s_g + of_group[i] * (pulled - d_ref[i]) * config.beta / len(valid)
                total = total + config.kl * weight * apart[i] / there / 2
            total = total + weight * torch.log1p(s_g.exp()) / config.beta / len(REWARDS) / 2
    return total, stopped


@pytest.mark.parametrize(
    ("clip", "drift"), [(None, None), (0.05, None), (None, 1e-3), (0.05, 1e-3), (None, 1e3)]
)
def test_an_update_of_phi_is_a_loop_over_samples_and_draws(
    clip: float | None, drift: float | None
) -> None:
    own = [] if clip is None else [f"surrogate.clip={clip}", "surrogate.clip_from=old"]
    own += [] if drift is None else [f"surrogate.drift={drift}"]
    state = Recording(small_config(*PHI, *own))
    loss, stopped = naive_phi(state, clip, drift)
    assert (stopped > 0) == (clip is not None or drift == 1e-3)
    expected = torch.autograd.grad(loss, state.networks.parameters("surrogate"))
    update_surrogate(state, scored(rolled_out(state)), ITERATION, 0.0)
    torch.testing.assert_close(state.gradients["surrogate"], list(expected), atol=3e-6, rtol=3e-4)


def test_old_phi_trails_phi_and_trails_it_longer_with_time() -> None:
    state = Recording(small_config(*PHI, "surrogate.clip=0.05", "surrogate.clip_from=old"))
    for iteration, decay in ((0, 0.001), (99, 0.1), (5000, 0.3)):
        before = [p.clone() for p in state.networks.parameters("surrogate_old")]
        update_surrogate(state, scored(rolled_out(state)), iteration, 0.0)
        now = state.networks.parameters("surrogate")
        expected = [decay * b + (1 - decay) * p for b, p in zip(before, now, strict=True)]
        torch.testing.assert_close(state.networks.parameters("surrogate_old"), expected)


def test_what_stops_a_sample_leaves_the_value_and_takes_the_gradient() -> None:
    d = torch.tensor([[0.5, 1.5, 0.5, 1.5], [0.5, 1.5, 0.5, 1.5]], dtype=torch.float64)
    advantage = torch.tensor([[1.0, 1.0, -1.0, -1.0]] * 2, dtype=torch.float64)
    drifted, one = torch.tensor([True, False]), torch.ones_like(d)

    def stopped(d: Tensor) -> Tensor:
        return losses.stop_drift(d, one, advantage, drifted)

    torch.testing.assert_close(stopped(d), d)
    grown = d.clone().requires_grad_()
    torch.autograd.backward(stopped(grown).sum())
    assert grown.grad is not None
    assert grown.grad.tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]


def test_weights_of_groups_and_samples_pass_finite_differences() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    live = torch.tensor([True, True, False])
    weight = torch.tensor([0.25, 1.0, 0.5], dtype=torch.float64)
    expected = (0.25 * math.log1p(math.exp(0.3)) + math.log1p(math.exp(-1.0))) / 3 / 2
    loss = losses.preference_loss(logits.detach(), live, 3.0, weight)
    assert float(loss) == pytest.approx(expected)
    assert torch.autograd.gradcheck(
        lambda x: losses.preference_loss(x, live, 3.0, weight), (logits,)
    )
    v = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: losses.anchor_loss(x, torch.zeros_like(x), live, weight), (v,)
    )


@pytest.mark.parametrize("solver", ["euler", "dpmsolver++"])
def test_an_update_of_the_fake_score_is_a_loop_over_samples_and_draws(solver: str) -> None:
    own = (*DRAWS, f"rollout.solver={solver}", "fake.weighting=flow", "fake.anchor=0.3")
    state = Recording(small_config(*own))
    batch, total = rolled_out(state), torch.zeros(())
    condition = batch.condition.repeat(batch.size)
    for draw in drawn(state, "fake.0", phi=False):
        for i in range(batch.samples):
            row, one = slice(i, i + 1), condition.rows(slice(i, i + 1))
            u, s, t = draw.step.u[row], draw.step.s[row], draw.t[row]
            with torch.no_grad():  # the step taken again by the live generator, by Euler
                v = state.networks.velocity("generator")(draw.step.x_u[row], u, one)
                x0, x_s = draw.step.x_u[row] - u * v, draw.step.x_u[row] - (u - s) * v
                a = (1 - t) / (1 - s)
                x_t = a * x_s + (t**2 - s**2 * a**2).sqrt() * draw.e[row]
                teacher = state.networks.velocity("teacher")(x_t, t, one)
            fake = state.networks.velocity("fake")(x_t, t, one)
            error = (fake - (x_t - x0) / t).square().mean()
            loss = error + 0.3 * (fake - teacher).square().mean()
            total = total + loss / batch.samples / 2
    expected = torch.autograd.grad(total, state.networks.parameters("fake"))
    update_fake(state, batch, ITERATION, 0.0)
    torch.testing.assert_close(state.gradients["fake"], list(expected), atol=3e-6, rtol=3e-4)


def test_a_fake_score_may_start_as_the_teacher() -> None:
    networks = build_networks(SmallBackbone(), small_config("fake.start=teacher"))
    assert all(not t.any() for name, t in networks.tensors("fake").items() if "lora_B" in name)


def test_draws_of_an_update_are_of_different_steps_and_late_ones_are_late() -> None:
    state = Recording(small_config(*DRAWS))
    batch, seen = rolled_out(state), torch.zeros(5)
    for iteration in range(60):
        one, two = state.draws(batch, iteration, "generator", "full")
        assert (one.j != two.j).all()
        assert not torch.equal(one.e, two.e)
        late = state.draw(batch, iteration, "phi", "full", shared=True, late=True)
        assert (late.j.view(2, 4) == late.j.view(2, 4)[:, :1]).all()
        seen += torch.bincount(late.j[::4], minlength=5)
    share = seen[1:] / seen.sum()
    assert ((share - torch.tensor([0.1, 0.2, 0.3, 0.4])).abs() < 0.12).all()


def test_phi_is_heard_at_a_time_of_its_own_with_the_noise_of_its_group() -> None:
    state = Recording(small_config(*DRAWS))
    batch = rolled_out(state)
    first = state.draws(batch, ITERATION, "generator", "full")[0]
    again = state.second_look(first, batch, ITERATION, "generator.phi.0", 0.6)
    assert torch.equal(first.j, again.j)
    assert not torch.allclose(first.t, again.t)
    assert float(again.t.min()) >= 0.6
    assert (again.e.view(2, 4, -1) == again.e.view(2, 4, -1)[:, :1]).all()
    assert not torch.equal(again.e[0], again.e[4])


def test_shifted_times_are_uniform_before_the_shift() -> None:
    share = torch.linspace(0, 1, 5).double()
    u, s = torch.ones_like(share), torch.full_like(share, 0.5)
    t = draw_time(share, u, s, segment=False, gap=0.02, t_max=1.0, t_min=0.3, shift=3.0)
    expected = [shift_time(0.25 + 0.02 + x * (1 - 0.27), 3.0) for x in share.tolist()]
    assert t.tolist() == pytest.approx(expected)
    assert unshift_time(shift_time(0.3, 3.0), 3.0) == pytest.approx(0.3)
    low = draw_time(share, u, 0 * s, segment=False, gap=0.02, t_max=1.0, t_min=0.3, shift=3.0)
    assert float(low[0]) == pytest.approx(shift_time(unshift_time(0.3, 3.0) + 0.02, 3.0))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers
@pytest.mark.parametrize("steps", [4, 7])
def test_the_rollout_of_second_order_is_diffusers_own(steps: int) -> None:
    config = small_config("rollout.solver=dpmsolver++", "rollout.flow_shift=3").rollout
    times = time_grid(steps, 3.0, start=0.999)
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(steps)
    assert times == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    if steps == 4:
        assert config.times == times
    state = Recording(small_config())
    condition = state.backbone.encode(["a", "b"])
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    network = state.networks.velocity("generator")
    path = rollout(network, x, condition, times, solver="dpmsolver++")
    euler = rollout(network, x, condition, times)
    with torch.no_grad():
        for j, (sigma, timestep) in enumerate(zip(times, scheduler.timesteps, strict=False)):
            v = network(x, torch.full((2,), sigma), condition)
            torch.testing.assert_close(path.x0[j], x - sigma * v)
            x = scheduler.step(v, timestep, x).prev_sample
            torch.testing.assert_close(path.states[j + 1], x, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(euler.final, path.final, atol=1e-2)
    for j, (u, s) in enumerate(pairwise(times)):
        step = path.step(torch.tensor([j + 1, j + 1]))
        torch.testing.assert_close((1 - s) * step.x0 + s * step.eps, step.x_s)
        x_s = step.x_u + (s - u) * (step.x_u - step.x0) / u
        torch.testing.assert_close(step.replayed().x_s, x_s)
