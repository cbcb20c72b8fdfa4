"""Passes of one iteration by phase, as the configuration makes them.

A pass with gradient counts twice (forward, and backward to the adapters: the frozen weights get no
gradient), three times with checkpointing.
"""

from __future__ import annotations

from trainer.config import Config


def passes(config: Config) -> dict[str, float]:
    """Passes over all samples of a batch, by phase; the last phases of a run, replays aside."""
    draws = config.target.draws
    trained = 3.0 if config.compute.checkpointing else 2.0
    anchored = 1 if config.fake.anchor > 0 else 0
    return {
        "rollout": float(config.rollout.k_steps),
        "surrogate": _surrogate(config, trained),
        "fake score": config.fake.updates * draws * (trained + anchored),
        "generator": draws * _generator(config, trained),
    }


def _surrogate(config: Config, trained: float) -> float:
    """phi's passes, those of what it is compared with, and one more where a group is cut."""
    surrogate, micro = config.surrogate, config.compute.micro_batch
    twice = 1 if micro is not None and micro < config.groups.size else 0
    if config.method == "direct_rl":
        return 1 + twice + trained
    if config.method != "tdm_r1":
        return 0.0
    to_teacher = surrogate.kl > 0 and surrogate.kl_anchor == "teacher"
    moving = config.reference.kind == "ema"
    compared = (to_teacher or not moving) + moving + keeps_old(config)
    return surrogate.updates * config.target.draws * (compared + twice + trained)


def _generator(config: Config, trained: float) -> float:
    """Guided teacher, fake score, the student itself (twice where it is cut), phi, reference."""
    generator, micro = config.generator, config.compute.micro_batch
    cut = micro is not None and micro < config.groups.size * config.groups.per_step
    count = 2 + 1 + trained + (1 if cut else 0)
    if config.method not in ("tdm_r1", "frozen_surrogate"):
        return count
    phi = 2 if generator.phi_cfg > 1 else 1
    if generator.form == "mixture":
        return count + phi + 1
    shared = generator.phi_cfg > 1 or config.reference.kind == "static"
    return count + phi + (0 if shared else 1)


def keeps_old(config: Config) -> bool:
    """Whether the trust region is that of an average of phi, which is one more adapter."""
    return config.surrogate.clip is not None and config.surrogate.clip_from == "old"


def roles(config: Config) -> int:
    """Adapters that a run keeps."""
    if config.method == "tdm_only":
        return 3
    if config.method == "direct_rl":
        return 4
    averages = (config.surrogate.ema > 0) + (config.reference.kind == "ema")
    return 4 + averages + keeps_old(config)


def trained_roles(config: Config) -> int:
    """Adapters with moments and gradients."""
    return 2 if config.method in ("tdm_only", "direct_rl") else 3
