"""The surrogate's step (Eq. 8/9): prefer samples with positive advantage, relative to a reference.

One (j, t) and one noise per group and draw, redrawn per update. Works on stored groups however
late their rewards come. A step in which no group states a preference is skipped and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from trainer.arithmetic.flow import mean_dims
from trainer.arithmetic.shapes import (
    GroupFlags,
    GroupMask,
    GroupValues,
    Latents,
    PerGroup,
    PerSample,
)
from trainer.config import SurrogateConfig
from trainer.models.backbones import Conditioning
from trainer.models.networks import Role
from trainer.rewards.groups import Advantages, advantages
from trainer.tdm_r1 import losses
from trainer.tdm_r1.passes import in_parts
from trainer.tdm_r1.state import Batch, Draw, Metrics, ScoredBatch, TrainState
from trainer.tdm_r1.targets import Noised


@dataclass(frozen=True)
class References:
    """What phi is compared with, tied to and kept in the trust region of, at the same x_t.

    Without gradient. old None: the trust region, if any, is the reference's.
    """

    reference: Latents
    anchor: Latents | None
    old: Latents | None = None


OLD_RAMP = 1e-3  # growth of old's decay per iteration, as in the authors' code
LookUp = Callable[[Latents, PerSample, Conditioning], References]


def update_surrogate(
    state: TrainState, scored: ScoredBatch, iteration: int, progress: float
) -> Metrics:
    """All updates of phi on one scored batch; the metrics are those of the first."""
    said = group_advantages(state, scored)
    metrics = dict(said.metrics)
    if said.live == 0:
        return metrics
    for update in range(state.config.surrogate.updates):
        step_metrics: Metrics = {}
        for draw in _draws(state, scored.batch, iteration, f"surrogate.{update}"):
            look_up, share = partial(references, state), 1 / state.config.target.draws
            found = preference_gradient(state, "surrogate", scored, said, draw, look_up, share)
            step_metrics = {**found, **step_metrics}
        step_metrics["grad_norm/surrogate"] = state.step("surrogate", progress)
        metrics = {**step_metrics, **metrics}
        _follow(state, iteration)
    return metrics


def _draws(state: TrainState, batch: Batch, iteration: int, role: str) -> Iterator[Draw]:
    """The draws of one update, each with steps, times and noises of its own."""
    config = state.config.surrogate
    for nth in range(state.config.target.draws):
        yield state.draw(
            batch,
            iteration,
            role if nth == 0 else f"{role}.{nth}",
            config.t_range,
            shared=True,
            t_min=config.t_min,
            late=config.steps == "late",
        )


@dataclass(frozen=True)
class GroupAdvantages:
    """What the groups of this process say; live groups and valid samples of all processes."""

    advantage: Advantages
    live: int
    valid: int
    metrics: Metrics


def group_advantages(state: TrainState, scored: ScoredBatch) -> GroupAdvantages:
    """Advantages by the configured rules, from the rewards of all processes."""
    groups, processes = state.config.groups, state.processes
    rewards, names = processes.all_gather(scored.rewards), processes.all_gather_names(scored.names)
    everyone = advantages(
        rewards,
        names,
        min_valid=groups.min_valid,
        dead_std=groups.dead_std,
        std=groups.advantage_std,
        clip=groups.advantage_clip,
    )
    own = processes.all_gather(torch.full((len(scored.rewards),), processes.rank)) == processes.rank
    return GroupAdvantages(
        Advantages(everyone.values[own], everyone.valid[own], everyone.live[own]),
        int(everyone.live.sum()),
        int(everyone.valid.sum()),
        _reward_metrics(rewards, names, everyone),
    )


def preference_gradient(
    state: TrainState,
    role: Role,
    scored: ScoredBatch,
    said: GroupAdvantages,
    draw: Draw,
    look_up: LookUp,
    factor: float = 1.0,
) -> Metrics:
    """Adds the gradient of factor times Eq. 9, with `role` as phi, to that role's parameters.

    The metrics are those of this draw.

    look_up: what phi is compared with and tied to at (x_t, t, condition). At least one group of
    some process must be live. The loss is recorded without the factor.
    """
    noised, batch = state.target(draw, state.config.surrogate.target), scored.batch
    condition = batch.condition.repeat(batch.size)
    refs = look_up(noised.x_t, noised.t, condition)
    distances, totals, logits = [], noised.t.new_zeros(2), []
    weight = _step_weight(draw, len(batch.trajectory.times) - 1, state.config.surrogate)
    question = Question(noised, weight, refs, condition, said)
    for rows in state.micro_batches(batch.samples, batch.size):
        part = _backward(state, role, question, rows, factor)
        distances.append(part.gained)
        logits.append(part.logits)
        totals += part.terms
    accuracy, pairs = losses.ranking_accuracy(-torch.cat(distances), scored.rewards)
    saturated = torch.cat(logits)[said.advantage.live].abs() > 4
    loss, kl, right, of, count = state.processes.totals(
        *totals.tolist(), accuracy * pairs if pairs else 0.0, pairs, float(saturated.sum())
    )
    return {
        "loss/surrogate": loss,
        "surrogate/kl": kl,
        "surrogate/ranking_accuracy": right / of if of else math.nan,
        "surrogate/pairs": of,
        "surrogate/sigmoid_saturation": count / said.live,
    }


def _weights(x0: PerSample, config: SurrogateConfig) -> PerSample:
    """w of Eq. 9 as configured; x0: the fake score's w."""
    return (torch.ones_like(x0) if config.weighting == "flow" else x0) / config.weight_norm


@dataclass(frozen=True)
class Question:
    """What phi is asked at once: noised samples, what it is compared with, and what was said.

    weight: what the loss of each sample counts, by the step it looks at.
    """

    noised: Noised
    weight: PerSample
    refs: References
    condition: Conditioning
    said: GroupAdvantages


@dataclass(frozen=True)
class Answer:
    """Of whole groups, without gradient: d - d_ref, [preference, kl] as parts of the sums, S_g."""

    gained: GroupValues
    terms: torch.Tensor
    logits: PerGroup


def _backward(
    state: TrainState, role: Role, question: Question, rows: slice, factor: float
) -> Answer:
    """Adds the gradient of factor times the loss of the groups in `rows`."""
    network, noised = state.networks.velocity(role), question.noised

    def passed(part: slice) -> Latents:
        own = slice(rows.start + part.start, rows.start + part.stop)
        return network(noised.x_t[own], noised.t[own], question.condition.rows(own))

    with in_parts(passed, state.micro_batches(rows.stop - rows.start)) as v:
        loss, answer = _loss(state, question, rows, v)
        torch.autograd.backward(factor * loss)
    return answer


def _loss(
    state: TrainState, question: Question, rows: slice, v: Latents
) -> tuple[torch.Tensor, Answer]:
    """Eq. 9 and the anchor for whole groups' `v`."""
    config, said = state.config.surrogate, question.said
    advantage, size = said.advantage, said.advantage.values.shape[1]
    part = slice(rows.start // size, rows.stop // size)
    noised, refs = question.noised, question.refs
    weight = _weights(noised.weight[rows], config)
    v_star, reference = noised.v_star[rows], refs.reference[rows]
    d = _distance(v, v_star, weight, size)
    d_ref = _distance(reference, v_star, weight, size)
    values, valid, live = advantage.values[part], advantage.valid[part], advantage.live[part]
    pulled = d
    if config.clip is not None:
        old = refs.old
        d_old = d_ref if old is None else _distance(old[rows], v_star, weight, size)
        pulled = losses.clip_distance(d, d_old, values, config.clip)
    if config.drift is not None and refs.anchor is not None:
        far = _drifted(v.detach(), refs.anchor[rows], valid, config.drift)
        pulled = losses.stop_drift(pulled, d_ref, values, far)
    logits = losses.group_logits(pulled, d_ref, values, valid, config.beta)
    share, counts = live.sum() / said.live, question.weight[rows]
    by_group = counts.view(-1, size)[:, 0]
    preference = losses.preference_loss(logits, live, config.beta, by_group) * share
    loss, anchor = preference, torch.zeros_like(preference)
    if refs.anchor is not None:
        share = valid.sum() / said.valid
        anchor = losses.anchor_loss(v, refs.anchor[rows], valid.flatten(), counts) * share
        loss = loss + config.kl * anchor
    terms = torch.stack([preference.detach(), anchor.detach()])
    return loss, Answer((d - d_ref).detach(), terms, logits.detach())


def _distance(v: Latents, v_star: Latents, weight: PerSample, size: int) -> GroupValues:
    return losses.denoising_distance(v, v_star, weight).view(-1, size)


def _drifted(v: Latents, anchor: Latents, valid: GroupMask, limit: float) -> GroupFlags:
    """Groups whose mean (v_phi - v_anchor)^2 exceeds the limit."""
    away = mean_dims((v - anchor).square()).view(valid.shape)
    return torch.where(valid, away, 0.0).sum(1) / valid.sum(1).clamp_min(1) > limit


def _step_weight(draw: Draw, steps: int, config: SurrogateConfig) -> PerSample:
    """What the loss of each sample counts, by the step of `steps` that it looks at."""
    return torch.ones_like(draw.t) if config.step_weight == "none" else draw.j / steps


@torch.no_grad()
def references(
    state: TrainState, x_t: Latents, t: PerSample, condition: Conditioning
) -> References:
    """Predictions of the reference and of the KL anchor, each network called once."""
    config, kind = state.config, state.config.reference.kind
    anchored = config.surrogate.kl > 0
    to_teacher = anchored and config.surrogate.kl_anchor == "teacher"
    teacher = None
    if kind == "static" or to_teacher:
        teacher = state.networks.velocity("teacher")(x_t, t, condition)
    reference = reference_velocity(state, x_t, t, condition, teacher=teacher)
    anchor = (teacher if to_teacher else reference) if anchored else None
    old = None
    if "surrogate_old" in state.networks.specs:
        old = state.networks.velocity("surrogate_old")(x_t, t, condition)
    return References(reference, anchor, old)


@torch.no_grad()
def reference_velocity(
    state: TrainState,
    x_t: Latents,
    t: PerSample,
    condition: Conditioning,
    *,
    teacher: Latents | None = None,
) -> Latents:
    """The reference's v; teacher: the teacher's own, if that pass was made already."""
    moving = state.config.reference.kind == "ema"
    if teacher is not None and not moving:
        return teacher
    return state.networks.velocity("reference" if moving else "teacher")(x_t, t, condition)


def _follow(state: TrainState, iteration: int) -> None:
    """The averages that trail phi, from their start at phi; only that of `old` has a ramp."""
    networks, config = state.networks, state.config
    if "surrogate_old" in networks.specs:
        decay = min(config.surrogate.old_decay, OLD_RAMP * (iteration + 1))
        networks.average("surrogate_old", "surrogate", decay)
    if "surrogate_ema" in networks.specs:
        networks.average("surrogate_ema", "surrogate", config.surrogate.ema)
    if "reference" in networks.specs:
        networks.average("reference", "surrogate", config.reference.decay)


def _reward_metrics(rewards: GroupValues, names: Sequence[str], advantage: Advantages) -> Metrics:
    """Mean reward in all and per reward name, shares of dead groups and missing rewards."""
    metrics = {
        "groups/dead_share": float((~advantage.live).float().mean()),
        "groups/missing_share": float((~advantage.valid).float().mean()),
        "reward/mean": float(rewards.nanmean()),
    }
    for name in sorted(set(names)):
        rows = torch.tensor([n == name for n in names])
        metrics[f"reward/{name}"] = float(rewards[rows].nanmean())
    return metrics
