"""Where the generator's x0 prediction is pulled, in two forms, without gradient.

difference (Eq. 10): g_kl + rho g_r with g_kl = x0_teacher^w - x0_fake and g_r = x0_phi - x0_ref at
one re-noised x_t: differences of scores up to one positive factor. mixture (the authors' published
code): teacher, its guidance and guided phi as three normalised terms, phi at an x_t of its own.
docs/algorithm.md derives both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.arithmetic.flow import stretch, velocity_to_x0
from trainer.arithmetic.shapes import Latents, PerSample, SampleMask
from trainer.models.backbones import Conditioning
from trainer.models.networks import Role, Source
from trainer.tdm_r1 import losses
from trainer.tdm_r1.state import Draw, TrainState
from trainer.tdm_r1.surrogate import reference_velocity

NORM_DECAY = 0.98  # smoothing of |g_kl| and |g_r| for generator.ratio = "norm_ema"


@dataclass(frozen=True)
class Seen:
    """What a pull looks at: a draw, for the mixture's phi a second one, and by which roles.

    rewarded False leaves phi out. teacher: the role whose guided prediction g_kl leads to.
    """

    draw: Draw
    again: Draw | None
    rewarded: bool
    teacher: Source


@dataclass(frozen=True)
class Pull:
    """direction / n is what x0 is moved by; force: how hard phi pulls against the KL."""

    direction: Latents
    n: PerSample
    force: losses.Force


@dataclass(frozen=True)
class Scores:
    """x0 predictions at one x_t, and the plain teacher's velocity, which a reference may share."""

    guided: Latents
    teacher: Latents
    fake: Latents
    v_teacher: Latents


@torch.no_grad()
def pull(state: TrainState, seen: Seen, x0: Latents, x_s: Latents, condition: Conditioning) -> Pull:
    """The pull on x0 by `generator.form`, from the generator's x_s re-noised as drawn."""
    x_t, t = seen.draw.renoised(x_s), seen.draw.t
    scores = _scores(state, x_t, t, condition, seen.teacher)
    n = losses.normaliser(x0, scores.guided)
    if not seen.rewarded:
        kl = scores.guided - scores.fake
        return Pull(kl, n, losses.Force(_moments(state, kl, kl).norms[0], 0.0, 0.0, 0.0))
    if state.config.generator.form == "mixture":
        return _mixture(state, seen, x0, x_s, condition, scores, n)
    return _difference(state, seen, x_t, condition, scores, n)


def smoothed_phi(state: TrainState) -> Role:
    """phi as the generator meets it."""
    return "surrogate_ema" if state.config.surrogate.ema > 0 else "surrogate"


def phi_t_min(state: TrainState) -> float:
    """The time from which on the generator listens to phi."""
    own = state.config.generator.phi_t_min
    return state.config.surrogate.t_min if own is None else own


def _scores(
    state: TrainState, x_t: Latents, t: PerSample, condition: Conditioning, teacher: Source
) -> Scores:
    """Guided and plain teacher in one batch, and the fake score."""
    guided, plain = state.backbone.guidance.both(
        state.networks.velocity(teacher),
        x_t,
        t,
        condition,
        state.uncondition,
        state.config.generator.teacher_cfg,
    )
    fake = state.networks.velocity("fake")(x_t, t, condition)
    x0_guided, x0_plain, x0_fake = (velocity_to_x0(x_t, v, t) for v in (guided, plain, fake))
    return Scores(x0_guided, x0_plain, x0_fake, plain)


def _difference(
    state: TrainState,
    seen: Seen,
    x_t: Latents,
    condition: Conditioning,
    scores: Scores,
    n: PerSample,
) -> Pull:
    """g_kl + factor g_r, the factor by `generator.ratio` from the norms over all processes."""
    config, t = state.config.generator, seen.draw.t
    phi = velocity_to_x0(x_t, _phi(state, x_t, t, condition), t)
    if config.phi_cfg > 1:
        compared = scores.guided
    else:
        known = scores.v_teacher if seen.teacher == "teacher" else None
        v = reference_velocity(state, x_t, t, condition, teacher=known)
        compared = velocity_to_x0(x_t, v, t)
    kl, reward = scores.guided - scores.fake, phi - compared
    reward = reward * stretch(_undecided(state, seen.draw), reward)
    moments = _moments(state, kl, reward)
    norms = wanted_kl, wanted_pull = moments.norms
    if config.ratio == "norm_ema":
        state.norms.update(wanted_kl, wanted_pull, NORM_DECAY)
        wanted_kl, wanted_pull = state.norms.kl, state.norms.reward
    factor = losses.reward_factor(
        wanted_kl,
        wanted_pull,
        ratio="fixed" if config.ratio == "fixed" else "norm",
        rho=config.rho,
        cap=config.ratio_cap,
        floor=config.norm_floor,
    )
    return Pull(kl + factor * reward, n, losses.Force(*norms, factor, moments.cosine))


def _mixture(
    state: TrainState,
    seen: Seen,
    x0: Latents,
    x_s: Latents,
    condition: Conditioning,
    scores: Scores,
    n: PerSample,
) -> Pull:
    """The three normalised terms; without phi's where it is not heard (`generator.phi_steps`)."""
    if seen.again is None:
        raise ValueError("the mixture hears phi at a second draw, and none was given")
    config, draw = state.config.generator, seen.again
    x_t, t = draw.renoised(x_s), draw.t
    phi = velocity_to_x0(x_t, _phi(state, x_t, t, condition), t)
    reward = phi - velocity_to_x0(x_t, reference_velocity(state, x_t, t, condition), t)
    cfg, kl = scores.guided - scores.teacher, scores.teacher - scores.fake
    share, n_reward = config.phi_share, losses.normaliser(x0, phi)
    direction = losses.mixture_direction(kl, cfg, reward, n, n_reward, share)
    if config.phi_steps is not None:
        alone = (1 - share) * (cfg + kl) / stretch(n, kl)
        heard = stretch(draw.j <= config.phi_steps, kl)
        direction = torch.where(heard, direction, alone)
    moments = _moments(state, kl + (1 - share) * cfg, reward)
    force = losses.Force(*moments.norms, share, moments.cosine)
    return Pull(direction, torch.ones_like(n), force)


def _phi(state: TrainState, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
    """phi's velocity with the guidance that the generator hears it with."""
    network, scale = state.networks.velocity(smoothed_phi(state)), state.config.generator.phi_cfg
    if scale == 1:
        return network(x_t, t, condition)
    rule = state.backbone.guidance
    return rule.guided(network, x_t, t, condition, state.uncondition, scale)


def _undecided(state: TrainState, draw: Draw) -> SampleMask:
    """Samples that phi is listened to for: their step begins, and they are looked at, in time.

    A step that begins below that time cannot change any more what phi speaks of; pulled all the
    same, it paints half-changed objects.
    """
    t_min = phi_t_min(state)
    return (draw.step.u >= t_min) & (draw.t >= t_min)


def _moments(state: TrainState, kl: Latents, reward: Latents) -> losses.Moments:
    """Second moments over all processes."""
    sums = state.processes.sum(torch.stack(losses.moments(kl, reward)))
    return losses.Moments(*(sums / state.processes.count))
