"""Closed forms: directions are score differences, and what a trained fake score converges to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from trainer.arithmetic.flow import interpolate, velocity_to_x0
from trainer.arithmetic.trajectory import Step
from trainer.tdm_r1.losses import denoising_distance, generator_loss
from trainer.tdm_r1.targets import noised_target


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, variance); knows its optimal velocity and its score at every t."""

    mean: float
    variance: float

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - t) * self.mean, (1 - t) ** 2 * self.variance + t**2

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        mean, variance = self.marginal(t)
        return -(x - mean) / variance

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        mean, variance = self.marginal(t)
        gain = (1 - t) * self.variance / variance
        x0 = self.mean + gain * (x - mean)
        return (x - x0) / t


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def x0_of(model: Gaussian, x: Tensor, t: Tensor) -> Tensor:
    return velocity_to_x0(x, model.velocity(x, t), t)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.7, 0.95])
def test_directions_are_score_differences_times_a_positive_number(t: float) -> None:
    a, b = Gaussian(0.3, 2.0), Gaussian(-0.5, 0.7)
    x = torch.linspace(-3, 3, 7).double()
    times = torch.full_like(x, t)
    difference = x0_of(a, x, times) - x0_of(b, x, times)
    scores = a.score(x, times) - b.score(x, times)
    torch.testing.assert_close(scores, (1 - t) / t**2 * difference)


def linear_step(u: float, s: float, data: Gaussian, x_u: Tensor) -> Step:
    """The step of an optimal deterministic student on Gaussian data of mean 0."""
    u_, s_ = torch.full_like(x_u[:, 0], u), torch.full_like(x_u[:, 0], s)
    v = data.velocity(x_u, u_[:, None])
    x0, eps = x_u - u * v, x_u + (1 - u) * v
    return Step(u_, s_, x_u, (1 - s) * x0 + s * eps, x0, eps)


def trained_and_true_score(kind: str, u: float, s: float, t: float) -> tuple[float, float]:
    """Slopes of the score a denoiser learns (its least-squares optimum) and of the true one.

    Everything is linear in (x_u, e): two evaluations give all coefficients, hence exact moments.
    """
    data = Gaussian(0.0, 4.0)
    x_u, e = column(1.0, 0.0)[:, None], column(0.0, 1.0)[:, None]
    step = linear_step(u, s, data, x_u)
    noised = noised_target(step, e, column(t, t), kind)  # type: ignore[arg-type]
    x_slopes, v_slopes = noised.x_t[:, 0], noised.v_star[:, 0]
    variances = torch.stack([data.marginal(column(u))[1][0], torch.tensor(1.0).double()])
    variance = (x_slopes**2 * variances).sum()
    gain = (x_slopes * v_slopes * variances).sum() / variance
    learnt = -(1 + (1 - t) * gain) / t  # score = -eps_hat / t
    return float(learnt), float(-1 / variance)


@pytest.mark.parametrize("u", [1.0, 0.857, 0.667, 0.4])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_fake_score_trained_on_the_bridge_is_the_marginal_score(u: float, share: float) -> None:
    s = share * u
    for t in (s + 0.02, (s + 1) / 2, 0.98):
        learnt, true = trained_and_true_score("bridge", u, s, t)
        assert learnt == pytest.approx(true, rel=1e-9)


@pytest.mark.parametrize("t", [0.45, 0.7, 0.95])
def test_a_fake_score_trained_on_the_mixed_target_is_exact_at_the_ends(t: float) -> None:
    for u, s in ((0.4, 0.0), (1.0, 0.0)):
        learnt, true = trained_and_true_score("mixed", u, s, t)
        assert learnt == pytest.approx(true, rel=1e-9)
    learnt, true = trained_and_true_score("mixed", 1.0, 0.4, t)
    # At u = 1 the data prediction is a constant (0), so nothing depends on anything.
    assert learnt == pytest.approx(true, rel=1e-9)


def test_the_mixed_targets_bias_in_between_is_known() -> None:
    learnt, true = trained_and_true_score("mixed", 2 / 3, 0.4, 0.5)
    assert true == pytest.approx(-0.973, abs=1e-3)
    assert learnt == pytest.approx(-1.405, abs=1e-3)


def generator_step(shift: Tensor, towards: Gaussian, away: Gaussian, lr: float) -> Tensor:
    """One step of a student that adds `shift` to standard normal noise, along x0_a - x0_b."""
    e = torch.randn(4096, 1, generator=torch.Generator().manual_seed(0)).double()
    noise = torch.randn(4096, 1, generator=torch.Generator().manual_seed(1)).double()
    shift = shift.detach().requires_grad_()
    x0 = noise + shift
    t = torch.full((4096,), 0.6).double()
    x_t = interpolate(x0.detach(), e, t)
    flat = x_t[:, 0]
    direction = (x0_of(towards, flat, t) - x0_of(away, flat, t))[:, None]
    torch.autograd.backward(generator_loss(x0, direction, torch.ones(4096).double()))
    assert shift.grad is not None
    return (shift - lr * shift.grad).detach()


def test_the_kl_direction_alone_moves_a_shifted_student_to_its_teacher() -> None:
    shift, teacher = torch.tensor([2.0]).double(), Gaussian(0.0, 1.0)
    for _ in range(60):
        fake = Gaussian(float(shift), 1.0)  # the exact score of the student of this moment
        shift = generator_step(shift, teacher, fake, lr=1.0)
    assert abs(float(shift)) < 0.05


def surrogate_reward(shift: float, phi: Gaussian, ref: Gaussian) -> float:
    """R_phi of the student's samples: -E (d_phi - d_ref) at clean states."""
    e = torch.randn(4096, 1, generator=torch.Generator().manual_seed(2)).double()
    noise = torch.randn(4096, 1, generator=torch.Generator().manual_seed(3)).double()
    t = torch.full((4096,), 0.6).double()
    x0 = noise + shift
    x_t, v_star, one = interpolate(x0, e, t)[:, 0], (e - x0), torch.ones(4096).double()
    d_phi = denoising_distance(phi.velocity(x_t, t)[:, None], v_star, one)
    d_ref = denoising_distance(ref.velocity(x_t, t)[:, None], v_star, one)
    return float((d_ref - d_phi).mean())


def test_the_reward_direction_alone_raises_the_surrogates_reward() -> None:
    phi, ref = Gaussian(1.0, 1.0), Gaussian(0.0, 1.0)
    shift = torch.tensor([0.2]).double()
    before = surrogate_reward(float(shift), phi, ref)
    shift = generator_step(shift, phi, ref, lr=0.5)
    assert surrogate_reward(float(shift), phi, ref) > before
    assert float(shift) > 0.2


@dataclass(frozen=True)
class Transition:
    """p(x_r | x_t) of two models with a common width, Eq. 9's parametrisation; r is t - 1 there.

    mean = (1 - r) x0_hat + sqrt(r^2 - eta^2) eps_hat, the model's velocity at x_t held fixed.
    """

    phi: Gaussian
    ref: Gaussian
    t: float
    r: float
    eta: float

    def log_ratio(self, x_r: Tensor, x_t: Tensor, at: Tensor) -> Tensor:
        """log p_phi / p_ref of x_r, the networks evaluated (without gradient) at `at`."""
        times = torch.full_like(at, self.t)

        def log_density(model: Gaussian) -> Tensor:
            eps = at + (1 - self.t) * model.velocity(at, times)
            x0 = (x_t - self.t * eps) / (1 - self.t)
            mean = (1 - self.r) * x0 + (self.r**2 - self.eta**2) ** 0.5 * eps
            return -((x_r - mean) ** 2) / (2 * self.eta**2)

        return log_density(self.phi) - log_density(self.ref)


def gradient(of: Tensor, to: Tensor) -> Tensor:
    """d of / d to, elementwise; zero where nothing depends on it."""
    (result,) = torch.autograd.grad(of.sum(), to, materialize_grads=True)
    return result


EQ_21 = Transition(Gaussian(0.8, 1.3), Gaussian(-0.2, 0.9), t=0.6, r=0.55, eta=0.2)


def points() -> tuple[Tensor, Tensor]:
    """x_t with gradient, and g_r = x0_phi - x0_ref there."""
    x_t = torch.linspace(-2, 2, 9).double()
    times = torch.full_like(x_t, EQ_21.t)
    direction = x0_of(EQ_21.phi, x_t, times) - x0_of(EQ_21.ref, x_t, times)
    return x_t.requires_grad_(), direction


def test_eq_21_at_a_fixed_inner_state_points_away_from_the_reward() -> None:
    x_t, g_r = points()
    x_r = torch.linspace(1, -1, 9).double()
    got = gradient(EQ_21.log_ratio(x_r, x_t, x_t.detach()), x_t)
    scale = got / g_r
    assert (scale < 0).all()
    torch.testing.assert_close(scale, scale[:1].expand(9))


def test_eq_21_with_the_inner_state_moving_along_says_nothing() -> None:
    x_t, _ = points()
    # x_r and x_t are re-noised from one x_s, so that moving it moves both: dx_r/dx_t = a_r / a_t.
    x_r = (1 - EQ_21.r) / (1 - EQ_21.t) * x_t + 0.3
    got = gradient(EQ_21.log_ratio(x_r, x_t, x_t.detach()), x_t)
    torch.testing.assert_close(got, torch.zeros_like(got), atol=1e-12, rtol=0)


def test_eq_21_read_as_the_marginal_log_ratio_is_the_direction_we_follow() -> None:
    x_t, g_r = points()
    times = torch.full_like(x_t, EQ_21.t)

    def log_density(model: Gaussian) -> Tensor:
        mean, variance = model.marginal(times)
        return -0.5 * variance.log() - (x_t - mean) ** 2 / (2 * variance)

    got = gradient(log_density(EQ_21.phi) - log_density(EQ_21.ref), x_t)
    torch.testing.assert_close(got, (1 - EQ_21.t) / EQ_21.t**2 * g_r)


def test_the_direction_is_also_the_gradient_of_the_surrogates_reward_with_networks_fixed() -> None:
    x_t, g_r = points()
    t = torch.full_like(x_t, EQ_21.t)
    e = torch.linspace(-1, 1, 9).double()
    x0 = ((x_t.detach() - EQ_21.t * e) / (1 - EQ_21.t)).requires_grad_()
    v_star, one = (e - x0)[:, None], torch.ones(9).double()
    v_phi = EQ_21.phi.velocity(x_t, t).detach()[:, None]
    v_ref = EQ_21.ref.velocity(x_t, t).detach()[:, None]
    reward = denoising_distance(v_ref, v_star, one) - denoising_distance(v_phi, v_star, one)
    torch.testing.assert_close(gradient(reward, x0), 2 / EQ_21.t * g_r)
