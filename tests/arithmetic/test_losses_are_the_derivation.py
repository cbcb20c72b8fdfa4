"""The three losses equal a deliberately naive loop, with the right gradients and signs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainer.arithmetic.trajectory import Step
from trainer.rewards.groups import advantages
from trainer.tdm_r1.losses import (
    anchor_loss,
    clip_distance,
    denoising_distance,
    fake_loss,
    generator_loss,
    group_logits,
    moments,
    normaliser,
    preference_loss,
    ranking_accuracy,
    reward_factor,
)
from trainer.tdm_r1.targets import draw_time, noised_target

G, N, DIMS = 3, 4, (2, 3)


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def positive(*shape: int, seed: int) -> Tensor:
    return normal(*shape, seed=seed).abs() + 0.1


def step(seed: int = 0, s: float = 0.4) -> Step:
    batch = G * N
    x0, eps = normal(batch, *DIMS, seed=seed), normal(batch, *DIMS, seed=seed + 1)
    times = torch.full((batch,), s).double()
    return Step(times + 0.2, times, x0, (1 - s) * x0 + s * eps, x0, eps)


@pytest.mark.parametrize("kind", ["mixed", "bridge"])
def test_fake_loss_equals_a_loop_over_samples_and_dimensions(kind: str) -> None:
    one = step()
    e, v = normal(G * N, *DIMS, seed=5), normal(G * N, *DIMS, seed=6)
    t = 0.5 + 0.4 * torch.linspace(0, 1, G * N).double()
    noised = noised_target(one, e, t, kind)  # type: ignore[arg-type]
    total = 0.0
    for i in range(G * N):
        ti, s = float(t[i]), 0.4
        a = (1 - ti) / (1 - s)
        b = math.sqrt(ti**2 - a**2 * s**2)
        error, mix_square, e_square, count = 0.0, 0.0, 0.0, 0
        for d in range(DIMS[0]):
            for k in range(DIMS[1]):
                x_s = (1 - s) * float(one.x0[i, d, k]) + s * float(one.eps[i, d, k])
                noise = float(e[i, d, k])
                assert float(noised.x_t[i, d, k]) == pytest.approx(a * x_s + b * noise)
                mix = (a * s * float(one.eps[i, d, k]) + b * noise) / ti
                if kind == "mixed":
                    target = mix - float(one.x0[i, d, k])
                else:
                    factor = (ti + (1 - ti) * s**2 / (1 - s) ** 2) / b
                    target = noise * factor - x_s / (1 - s)
                error += (float(v[i, d, k]) - target) ** 2
                mix_square += mix**2
                e_square += noise**2
                count += 1
        if kind == "mixed":
            ratio = math.exp(-mix_square / count / 2) / math.exp(-e_square / count / 2)
            weight = min((1 - ti) ** 2, 5 * ti**2) * min(max(ratio, 0.2), 5.0)
        else:
            weight = ((1 - ti) * b / ti) ** 2
        total += weight * error / count
    got = fake_loss(v, noised.v_star, noised.weight)
    assert float(got) == pytest.approx(total / (G * N))


def test_surrogate_loss_equals_a_loop_over_groups() -> None:
    d, d_ref = positive(G, N, seed=1), positive(G, N, seed=2)
    rewards = positive(G, N, seed=3)
    rewards[0, 2] = math.nan
    rewards[1, :] = 0.5
    advantage = advantages(rewards, ["a"] * G)
    beta, total, live = 100.0, 0.0, 0
    for g in range(G):
        valid = [i for i in range(N) if not math.isnan(float(rewards[g, i]))]
        values = [float(rewards[g, i]) for i in valid]
        mean = sum(values) / len(values)
        std = math.sqrt(sum((r - mean) ** 2 for r in values) / len(values))
        if std < 1e-3:
            continue
        s = 0.0
        for i, r in zip(valid, values, strict=True):
            s += (r - mean) / std * (float(d[g, i]) - float(d_ref[g, i]))
        s *= beta / len(valid)
        total += (math.log1p(math.exp(-abs(s))) + max(s, 0.0)) / beta
        live += 1
    logits = group_logits(d, d_ref, advantage.values, advantage.valid, beta)
    got = preference_loss(logits, advantage.live, beta)
    assert live == 2
    assert float(got) == pytest.approx(total / live)


def test_group_size_in_the_logit_counts_valid_samples_only() -> None:
    d, d_ref = positive(1, 4, seed=1), positive(1, 4, seed=2)
    rewards = torch.tensor([[0.0, 1.0, math.nan, 0.5]], dtype=torch.float64)
    whole = advantages(rewards, ["a"])
    keep = [0, 1, 3]
    part = advantages(rewards[:, keep], ["a"])
    torch.testing.assert_close(
        group_logits(d, d_ref, whole.values, whole.valid, 100.0),
        group_logits(d[:, keep], d_ref[:, keep], part.values, part.valid, 100.0),
    )


def test_generator_gradient_is_minus_the_direction_over_its_normaliser() -> None:
    x0 = normal(5, *DIMS, seed=1).requires_grad_()
    direction, teacher = normal(5, *DIMS, seed=2), normal(5, *DIMS, seed=3)
    n = normaliser(x0, teacher)
    torch.autograd.backward(generator_loss(x0, direction, n))
    assert x0.grad is not None
    for i in range(5):
        size = float((x0[i] - teacher[i]).detach().abs().mean())
        torch.testing.assert_close(x0.grad[i], -direction[i] / size / x0.numel())


def test_normaliser_never_divides_by_nearly_nothing() -> None:
    x0 = normal(2, *DIMS, seed=1)
    assert normaliser(x0, x0).tolist() == [1e-3, 1e-3]


def test_gradients_are_those_of_finite_differences() -> None:
    v_star, weight = normal(G * N, *DIMS, seed=1), positive(G * N, seed=2)
    anchor, d_ref = normal(G * N, *DIMS, seed=3), positive(G, N, seed=4)
    advantage = advantages(positive(G, N, seed=5), ["a"] * G)

    def surrogate(v: Tensor) -> Tensor:
        d = denoising_distance(v, v_star, weight).view(G, N)
        logits = group_logits(d, d_ref, advantage.values, advantage.valid, 3.0)
        valid = advantage.valid.flatten()
        return preference_loss(logits, advantage.live, 3.0) + 0.1 * anchor_loss(v, anchor, valid)

    v = normal(G * N, *DIMS, seed=6).requires_grad_()
    assert torch.autograd.gradcheck(surrogate, (v,))
    assert torch.autograd.gradcheck(lambda x: fake_loss(x, v_star, weight), (v,))


def test_a_surrogate_step_raises_positive_samples_against_negative_ones() -> None:
    v_star, weight = normal(4, *DIMS, seed=1), positive(4, seed=2)
    v_ref = normal(4, *DIMS, seed=3)
    advantage = advantages(torch.tensor([[1.0, 0.9, 0.1, 0.0]]), ["a"])
    d_ref = denoising_distance(v_ref, v_star, weight).view(1, 4)
    v = v_ref.clone().requires_grad_()
    d = denoising_distance(v, v_star, weight).view(1, 4)
    logits = group_logits(d, d_ref, advantage.values, advantage.valid, 100.0)
    torch.autograd.backward(preference_loss(logits, advantage.live, 100.0))
    assert v.grad is not None
    after = denoising_distance(v.detach() - 1e-3 * v.grad, v_star, weight).view(1, 4)
    rise = d_ref - after  # of the surrogate's reward
    assert (rise[0, :2] > 0).all()
    assert (rise[0, 2:] < 0).all()


def test_dead_groups_and_masked_samples_give_no_gradient() -> None:
    d = positive(2, 3, seed=1).requires_grad_()
    rewards = torch.tensor([[0.5, 0.5, 0.5], [0.0, math.nan, 1.0]], dtype=torch.float64)
    advantage = advantages(rewards, ["a", "a"])
    logits = group_logits(d, positive(2, 3, seed=2), advantage.values, advantage.valid, 10.0)
    torch.autograd.backward(preference_loss(logits, advantage.live, 10.0))
    assert d.grad is not None
    assert d.grad[0].abs().max() == 0
    assert d.grad[1, 1] == 0
    assert (d.grad[1, [0, 2]] != 0).all()


def test_clipping_stops_samples_that_went_far_enough_the_right_way() -> None:
    d_old = torch.ones(1, 4)
    d = torch.tensor([[0.5, 1.5, 0.5, 1.5]], requires_grad=True)
    advantage = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    torch.autograd.backward(clip_distance(d, d_old, advantage, 0.1).sum())
    assert d.grad is not None
    assert d.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ratio": "fixed", "rho": 2.0, "cap": None, "floor": 0.05}, 2.0),
        ({"ratio": "fixed", "rho": 2.0, "cap": 3.0, "floor": 0.05}, 2.0),
        ({"ratio": "fixed", "rho": 50.0, "cap": 3.0, "floor": 0.05}, 6.0),
        ({"ratio": "norm", "rho": 0.5, "cap": None, "floor": 0.05}, 1.0),
        ({"ratio": "norm", "rho": 0.5, "cap": None, "floor": 0.8}, 0.5 / 0.8),
    ],
)
def test_the_reward_is_scaled_against_the_kl(settings: dict[str, float], expected: float) -> None:
    got = reward_factor(2.0, 1.0, **settings)  # type: ignore[arg-type]
    assert got == pytest.approx(expected)


def test_ranking_accuracy_counts_pairs_with_different_rewards() -> None:
    rewards = torch.tensor([[0.0, 1.0, 1.0, math.nan]])
    right, pairs = ranking_accuracy(torch.tensor([[0.0, 1.0, 2.0, 9.0]]), rewards)
    assert (right, pairs) == (1.0, 2)
    half, _ = ranking_accuracy(torch.zeros(1, 4), rewards)
    assert half == 0.5
    wrong, _ = ranking_accuracy(torch.tensor([[3.0, 1.0, 4.0, 0.0]]), rewards)
    assert wrong == 0.5
    nothing, pairs = ranking_accuracy(torch.zeros(1, 2), torch.ones(1, 2))
    assert math.isnan(nothing)
    assert pairs == 0


def test_cosine_tells_agreement_from_opposition() -> None:
    a = normal(3, *DIMS, seed=1)
    assert moments(a, 2 * a).cosine == pytest.approx(1.0)
    assert moments(a, -a).cosine == pytest.approx(-1.0)
    assert moments(a, torch.zeros_like(a)).cosine == 0.0


def test_times_stay_in_their_range() -> None:
    share = torch.linspace(0, 1, 101)[:-1]
    u, s = torch.full_like(share, 0.67), torch.full_like(share, 0.4)
    full = draw_time(share, u, s, segment=False, gap=0.02, t_max=0.98)
    segment = draw_time(share, u, s, segment=True, gap=0.02, t_max=0.98)
    assert (float(full.min()), float(segment.min())) == pytest.approx((0.42, 0.42))
    noisy = draw_time(share, u, s, segment=False, gap=0.02, t_max=0.98, t_min=0.7)
    assert float(noisy.min()) == pytest.approx(0.7)
    assert 0.97 < float(full.max()) < 0.98
    assert 0.66 < float(segment.max()) < 0.67
    first = draw_time(share, torch.ones_like(share), s, segment=True, gap=0.02, t_max=0.98)
    assert float(first.max()) < 0.98
