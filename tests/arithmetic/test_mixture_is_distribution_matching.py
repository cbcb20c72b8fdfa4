"""The three terms of the authors' generator are one: matching a mixture of teacher and phi."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.small_backbone import Recording, rolled_out, small_config
from trainer.tdm_r1 import losses
from trainer.tdm_r1.directions import Pull, Seen, pull
from trainer.tdm_r1.generator import update_generator

SHARE, CFG, ITERATION = 0.7, 4.5, 3
MIXTURE = (
    "generator.form=mixture",
    f"generator.phi_share={SHARE}",
    f"generator.phi_cfg={CFG}",
    f"generator.teacher_cfg={CFG}",
    "surrogate.ema=0",
    "target.times=shifted",
    "target.t_max=1.0",
    "target.draws=2",
)


def normal(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 3, 2, 2, generator=generator, dtype=torch.float64)


def test_with_one_time_noise_and_normaliser_the_terms_add_up_to_the_mixture() -> None:
    teacher, unconditional, phi, phi_unconditional, fake = (normal(i) for i in range(5))
    n = normal(9).flatten(1).abs().mean(1)
    guided = unconditional + CFG * (teacher - unconditional)
    guided_phi = phi_unconditional + CFG * (phi - phi_unconditional)
    direction = losses.mixture_direction(
        teacher - fake, guided - teacher, guided_phi - teacher, n, n, SHARE
    )
    mixture = (1 - SHARE) * guided + SHARE * guided_phi
    torch.testing.assert_close(direction, (mixture - fake) / n.view(-1, 1, 1, 1))


@pytest.mark.parametrize("t", [0.3, 0.7])
def test_on_gaussians_it_is_the_score_of_the_weighted_product_of_both(t: float) -> None:
    """Score of p_T^0.3 p_phi^0.7, up to normalisation, minus the fake's: from x0 by (1 - t)/t^2."""
    x, laws = normal(1), {"teacher": (0.5, 0.8), "phi": (-1.0, 1.5), "fake": (0.2, 1.1)}

    def variance(law: str) -> float:
        return float((1 - t) ** 2 * laws[law][1] + t**2)

    def log_density(law: str, at: Tensor) -> Tensor:
        return -(at - (1 - t) * laws[law][0]).square() / (2 * variance(law))

    def x0(law: str) -> Tensor:
        mean, spread = laws[law]
        return mean + (1 - t) * spread / variance(law) * (x - (1 - t) * mean)

    at = x.clone().requires_grad_()
    product = (1 - SHARE) * log_density("teacher", at) + SHARE * log_density("phi", at)
    ratio = (product - log_density("fake", at)).sum()
    (score,) = torch.autograd.grad(ratio, at)
    one = torch.ones(len(x), dtype=torch.float64)
    direction = losses.mixture_direction(
        x0("teacher") - x0("fake"),
        torch.zeros_like(x),  # the teacher's law is meant as guided already
        x0("phi") - x0("teacher"),
        one,
        one,
        SHARE,
    )
    torch.testing.assert_close(direction * (1 - t) / t**2, score)


def pulled(state: Recording, *, apart: bool) -> Pull:
    """What the configured form pulls at; phi at a draw of its own, or at the first one."""
    batch = rolled_out(state)
    condition = batch.condition.repeat(batch.size)
    draw = state.draws(batch, ITERATION, "generator", "full")[0]
    again = state.second_look(draw, batch, ITERATION, "again", 0.0) if apart else draw
    x0, x_s = draw.step.x0, draw.step.x_s
    return pull(state, Seen(draw, again, True, "teacher"), x0, x_s, condition)


def test_the_networks_are_pulled_alike_by_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """rho = the share, guided phi against the guided teacher: the same where all else agrees."""
    monkeypatch.setattr(losses, "normaliser", lambda x0, _: torch.ones(len(x0)))
    difference = (
        *MIXTURE,
        "generator.form=difference",
        f"generator.rho={SHARE}",
        "generator.ratio_cap=1e9",
        "generator.phi_t_min=0",
    )
    mixed = pulled(Recording(small_config(*MIXTURE)), apart=False)
    apart = pulled(Recording(small_config(*MIXTURE)), apart=True)
    other = pulled(Recording(small_config(*difference)), apart=False)
    torch.testing.assert_close(mixed.direction, other.direction, atol=2e-6, rtol=2e-5)
    assert not torch.allclose(apart.direction, other.direction, atol=1e-2)


def naive(state: Recording) -> Tensor:
    """The mean over samples and draws of the squared distance to where the three terms lead."""
    batch, config = rolled_out(state), state.config.generator
    condition, total = batch.condition.repeat(batch.size), torch.zeros(())
    draws = state.draws(batch, ITERATION, "generator", "full")
    for nth, draw in enumerate(draws):
        lowest = config.phi_t_min or 0.0
        again = state.second_look(draw, batch, ITERATION, f"generator.phi.{nth}", lowest)
        for i in range(batch.samples):
            row, own = slice(i, i + 1), condition.rows(slice(i, i + 1))
            u, s = draw.step.u[row], draw.step.s[row]
            v = state.networks.velocity("generator")(draw.step.x_u[row], u, own)
            x0 = draw.step.x_u[row] - u * v
            x_s = draw.step.x_u[row] - (u - s) * v
            with torch.no_grad():
                direction = _direction(state, draw, again, row, x0, x_s, own)
                goal = x0 + direction
            loss = 0.5 * (x0 - goal).square().mean()
            total = total + loss / batch.samples / len(draws)
    return total


def _direction(state, draw, again, row, x0, x_s, own) -> Tensor:  # type: ignore[no-untyped-def]
    config, none = state.config.generator, state.uncondition

    def seen(look) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        s, t = look.step.s[row], look.t[row]
        a = (1 - t) / (1 - s)
        return a * x_s + (t**2 - a**2 * s**2).sqrt() * look.e[row], t

    def says(role, look, condition) -> Tensor:  # type: ignore[no-untyped-def]
        x, t = seen(look)
        v: Tensor = state.networks.velocity(role)(x, t, condition)
        return x - t * v

    teacher, plain = says("teacher", draw, own), says("teacher", draw, none)
    phi, phi_plain = says("surrogate", again, own), says("surrogate", again, none)
    guided = plain + config.teacher_cfg * (teacher - plain)
    guided_phi = phi_plain + config.phi_cfg * (phi - phi_plain)
    n = (x0 - guided).abs().mean()
    n_reward = (x0 - guided_phi).abs().mean()
    d_cfg, d_kl = guided - teacher, teacher - says("fake", draw, own)
    d_r = guided_phi - says("teacher", again, own)
    if config.phi_steps is not None and int(draw.j[row]) > config.phi_steps:
        return 0.3 * (d_cfg + d_kl) / n  # type: ignore[no-any-return]
    return (0.3 * d_cfg + d_kl) / n + 0.7 * d_r / n_reward  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "own",
    [(), ("generator.phi_t_min=0.3", "rollout.solver=dpmsolver++"), ("generator.phi_steps=2",)],
)
@pytest.mark.parametrize("micro_batch", ["", "compute.micro_batch=3"])
def test_an_update_is_a_loop_over_samples_and_draws(own: tuple[str, ...], micro_batch: str) -> None:
    state = Recording(small_config(*MIXTURE, *own, *filter(None, [micro_batch])))
    parameters = state.networks.parameters("generator")
    expected = torch.autograd.grad(naive(state), parameters)
    update_generator(state, rolled_out(state), ITERATION, 0.0, rewarded=True)
    assert all(float(g.abs().max()) > 0 for g in expected)
    torch.testing.assert_close(state.gradients["generator"], list(expected), atol=2e-6, rtol=2e-4)


def test_without_reward_the_mixture_is_the_guided_teacher_alone() -> None:
    forms = []
    for form in ("mixture", "difference"):
        state = Recording(small_config(*MIXTURE, f"generator.form={form}"))
        update_generator(state, rolled_out(state), ITERATION, 0.0, rewarded=False)
        forms.append(state.gradients["generator"])
    torch.testing.assert_close(*forms)


def test_the_average_with_a_ramp_forgets_its_start_at_once() -> None:
    state = Recording(small_config(*MIXTURE, "generator.ema=0.9", "generator.ema_ramp=true"))
    before = [p.clone() for p in state.networks.parameters("generator_ema")]
    update_generator(state, rolled_out(state), 0, 0.0, rewarded=True)
    now = state.networks.parameters("generator")
    expected = [0.1 * b + 0.9 * p for b, p in zip(before, now, strict=True)]
    torch.testing.assert_close(state.networks.parameters("generator_ema"), expected)
