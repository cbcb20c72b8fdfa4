"""Combinations of settings that load but cannot train, each with its remedy.

Pure. Knows what the method needs; types and ranges of single values are checked by the tree itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config.tree import Config, RolloutConfig


def cross_field_problems(config: Config) -> list[str]:
    """One sentence per problem, the most basic first; empty if there is none."""
    checks = (_groups, _times, _draws, _surrogate, _generator, _method)
    return [problem for check in checks for problem in check(config)]


def _groups(c: Config) -> Iterator[str]:
    if c.groups.min_valid > c.groups.size:
        yield (
            f"groups.min_valid = {c.groups.min_valid} exceeds groups.size = {c.groups.size}: "
            "no group could ever be used; lower min_valid"
        )
    if c.groups.replays:
        yield from _replays(c)


def _replays(c: Config) -> Iterator[str]:
    if c.groups.memory < c.groups.per_step:
        yield (
            f"groups.memory = {c.groups.memory} holds no batch of groups.per_step = "
            f"{c.groups.per_step} to replay; raise it, or set groups.replays = 0"
        )
    ahead = 1 if c.server.window is None else c.server.window // c.groups.per_step
    age = ahead * (c.groups.replays + 1)
    if age > c.groups.max_staleness:
        yield (
            f"groups.replays = {c.groups.replays} makes every group {age} versions old when its "
            f"scores are used, and groups.max_staleness = {c.groups.max_staleness} takes that for "
            f"late; set it to {2 * age}"
        )


def _times(c: Config) -> Iterator[str]:
    kinds = {"target.kind": c.target.kind, "surrogate.target": c.surrogate.target}
    bridges = [name for name, kind in kinds.items() if kind == "bridge"]
    if bridges and c.target.t_min_gap <= 0:
        yield f"{bridges[0]} = 'bridge' is singular at t = s; set target.t_min_gap above 0 (0.02)"
    ranges = {
        "surrogate": c.surrogate.t_range,
        "fake": c.fake.t_range,
        "generator": c.generator.t_range,
    }
    segmented = [name for name, t_range in ranges.items() if t_range == "segment"]
    if segmented and shortest_segment(c.rollout) <= c.target.t_min_gap:
        yield (
            f"{segmented[0]}.t_range = 'segment' has no room: the shortest of the "
            f"{c.rollout.k_steps} steps is not longer than target.t_min_gap = "
            f"{c.target.t_min_gap}; use fewer steps, a smaller gap, or t_range = 'full'"
        )
    first = c.rollout.times[1]
    if first + c.target.t_min_gap >= c.target.t_max:
        yield (
            f"the first step ends at t = {first:.3f}, which leaves no time between it + "
            f"target.t_min_gap and target.t_max = {c.target.t_max}; lower rollout.flow_shift or "
            "rollout.k_steps, or raise target.t_max"
        )


def _draws(c: Config) -> Iterator[str]:
    if c.rollout.solver != "euler" and c.rollout.mode == "stochastic":
        yield (
            f"rollout.solver = {c.rollout.solver!r} takes deterministic steps; set rollout.mode = "
            "'deterministic', or rollout.solver = 'euler'"
        )
    if c.target.draws > c.rollout.k_steps:
        yield (
            f"target.draws = {c.target.draws} wants that many different steps of "
            f"rollout.k_steps = {c.rollout.k_steps}; lower it"
        )


def _generator(c: Config) -> Iterator[str]:
    apart = c.generator.form == "difference" and c.generator.phi_cfg > 1
    if apart and c.reference.kind != "static":
        yield (
            f"generator.phi_cfg = {c.generator.phi_cfg:g} compares guided phi with the guided "
            f"teacher, not with reference.kind = {c.reference.kind!r}; set reference.kind = "
            "'static', or generator.form = 'mixture'"
        )
    lowest = c.generator.phi_t_min
    if lowest is not None and lowest >= c.target.t_max:
        yield (
            f"generator.phi_t_min = {lowest} leaves no time below target.t_max = "
            f"{c.target.t_max}; lower it (0.3)"
        )
    if c.generator.ratio != "fixed" and c.generator.norm_floor <= 0:
        yield (
            f"generator.ratio = {c.generator.ratio!r} divides by |g_r|, which starts at 0; set "
            "generator.norm_floor above 0"
        )


def _surrogate(c: Config) -> Iterator[str]:
    if c.surrogate.t_min > 0 and c.surrogate.t_range == "segment":
        yield (
            f"surrogate.t_min = {c.surrogate.t_min} lies above the segments of the last steps; set "
            "surrogate.t_range = 'full', or t_min = 0"
        )
    if c.surrogate.t_min >= c.target.t_max:
        yield (
            f"surrogate.t_min = {c.surrogate.t_min} leaves no time below target.t_max = "
            f"{c.target.t_max}; lower it (0.7)"
        )
    if c.surrogate.drift is not None and c.surrogate.kl == 0:
        yield (
            f"surrogate.drift = {c.surrogate.drift} is a distance to the anchor of surrogate.kl, "
            "which is 0; set surrogate.kl = 0.001"
        )
    if c.surrogate.clip is not None and c.surrogate.clip >= 1:
        yield f"surrogate.clip = {c.surrogate.clip} never clips from below; use 1e-3 to 0.2"
    has_phi = c.method not in ("tdm_only", "direct_rl")
    moving = has_phi and c.reference.kind == "ema"
    if moving and c.surrogate.ema >= c.reference.decay:
        yield (
            f"surrogate.ema = {c.surrogate.ema} is not faster than reference.decay = "
            f"{c.reference.decay}: the reward's sign would flip; set surrogate.ema = 0"
        )
    if moving and c.surrogate.kl_anchor == "teacher" and c.surrogate.kl > 0.01:
        yield (
            f"surrogate.kl = {c.surrogate.kl} ties phi to the frozen teacher while the reference "
            "moves, and the reward force dies; set surrogate.kl_anchor = 'reference'"
        )


def _method(c: Config) -> Iterator[str]:
    kind = c.reference.kind
    if c.method == "direct_rl" and c.generator.ratio != "fixed":
        yield (
            f"method = 'direct_rl' adds a loss, not a direction, so generator.ratio = "
            f"{c.generator.ratio!r} cannot scale it; set generator.ratio = 'fixed' and "
            "generator.rho"
        )
    if c.method == "frozen_surrogate" and kind != "static":
        yield (
            f"method = 'frozen_surrogate' compares a finished phi, and reference.kind = {kind!r} "
            "would have caught up with it; set reference.kind = 'static'"
        )
    phi_first = c.method in ("frozen_surrogate", "dgpo_then_distil")
    if phi_first and c.dgpo.iterations >= c.run.iterations:
        yield (
            f"dgpo.iterations = {c.dgpo.iterations} leaves none of run.iterations = "
            f"{c.run.iterations} for the generator; lower dgpo.iterations"
        )


def shortest_segment(rollout: RolloutConfig) -> float:
    """The smallest T_{j-1} - T_j of the student's grid."""
    return min(u - s for u, s in pairwise(rollout.times))
