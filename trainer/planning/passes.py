"""Passes of one iteration by phase, as the configuration makes them.

A pass with gradient counts twice (forward, and backward to the adapters: the frozen weights get no
gradient), three times with checkpointing.
"""

from __future__ import annotations

from trainer.config import Config


def passes(config: Config) -> dict[str, float]:
    """Passes over all samples of a batch, by phase; the last phases of a run, replays aside."""
    trained = 3.0 if config.compute.checkpointing else 2.0
    method, micro = config.method, config.compute.micro_batch
    surrogate = 0.0
    if method in ("tdm_r1", "direct_rl"):
        anchored = config.surrogate.kl > 0 and config.surrogate.kl_anchor == "teacher"
        references = 2 if config.reference.kind == "ema" and anchored else 1
        references += keeps_old(config)
        twice = 1 if micro is not None and micro < config.groups.size else 0
        surrogate = config.surrogate.updates * (references + twice + trained)
    generator = 2 + 1 + trained  # guided teacher, fake score, the student itself
    generator += 0 if micro is None else 1
    if method in ("tdm_r1", "frozen_surrogate"):
        generator += _heard(config)
    draws, anchored_fake = config.target.draws, 1 if config.fake.anchor > 0 else 0
    return {
        "rollout": float(config.rollout.k_steps),
        "surrogate": draws * surrogate,
        "fake score": draws * config.fake.updates * (trained + anchored_fake),
        "generator": draws * generator,
    }


def _heard(config: Config) -> int:
    """Of phi and of what the generator compares it with; guidance takes two."""
    guided = config.generator.phi_cfg > 1
    phi = 2 if guided else 1
    if config.generator.form == "mixture":
        return phi + 1
    compared = 0 if guided or config.reference.kind == "static" else 1  # seen by g_kl already
    return phi + compared


def keeps_old(config: Config) -> bool:
    """Whether the trust region is that of an average of phi, which is one more adapter."""
    return config.surrogate.clip is not None and config.surrogate.clip_from == "old"


def roles(config: Config) -> int:
    """Adapters that a run keeps, beside the three (or two) with an optimizer's state."""
    if config.method == "tdm_only":
        return 3
    if config.method == "direct_rl":
        return 4
    averages = (config.surrogate.ema > 0, config.reference.kind == "ema", keeps_old(config))
    return 4 + sum(averages)


def trained_roles(config: Config) -> int:
    """Adapters with moments and gradients."""
    return 2 if config.method in ("tdm_only", "direct_rl") else 3
