"""What does phi learn from so many scored groups? Minutes instead of a training run.

``python -m benchmarks.surrogate --variant "all times" surrogate.t_min=0`` rolls groups out by the
start of the embedded model, has the counting scorer judge them in this process, trains phi once
over most of them for each variant, and looks at the rest: how well phi ranks pictures it has not
seen, how much of what it says is about the reward, and what the teacher paints when phi guides it.
The reference is the teacher throughout, so that nothing but phi moves; every variant sees the same
pictures in the same order.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from reward_server.domain.outcomes import Scored
from reward_server.scorers import ScorerItem
from reward_server.scorers.counting import CountingOptions, CountingScorer, JudgeOptions
from reward_server.scorers.metadata import GenEvalTarget
from shared.images import Pixels
from trainer.arithmetic.randomness import normals
from trainer.arithmetic.shapes import Latents, PerSample
from trainer.config import Config, load_config
from trainer.models.backbones import Conditioning, load_backbone
from trainer.models.networks import build_networks
from trainer.models.rollout import Velocity, sample_guided, sampled
from trainer.models.texts import TextCache
from trainer.rewards.groups import Group, Prompt, ScoredGroup
from trainer.rewards.inflight import to_pixels
from trainer.rewards.prompts import PromptStream
from trainer.run.supply import scored_batch
from trainer.tdm_r1 import losses
from trainer.tdm_r1.state import Batch, ScoredBatch, TrainState
from trainer.tdm_r1.surrogate import group_advantages, update_surrogate
from trainer.tdm_r1.targets import Noised, noised_target

CONFIG: Final = Path("trainer/configs/tiny.toml")
STILL: Final = (
    "reference.kind=static",
    "surrogate.kl_anchor=teacher",
    "surrogate.kl=0.01",
    "optimizer.schedule=constant",
)
"""The reference stands still, and no schedule makes short runs differ from long ones."""
LOOKS: Final = ((1, 0.92), (1, 0.96), (2, 0.78), (2, 0.9), (3, 0.8), (3, 0.92), (4, 0.75), (4, 0.9))
"""(step of the trajectory, time) at which unseen pictures are looked at."""
GUIDED_STEPS: Final = 16
"""Of the guided teacher; three evaluations each."""


@dataclass(frozen=True)
class Found:
    """What a variant's phi knows. ``ranking``: share of unseen pairs in the reward's order, with
    its standard error over groups. ``tilt``: what phi says in favour of the better pictures, over
    the size of all that it says, (A d_ref - A d) / |v_phi - v_ref|. ``distance``: that size.
    ``guided``: by strength, the mean reward of the teacher guided by phi."""

    variant: str
    updates: int
    seconds: float
    ranking: float
    error: float
    tilt: float
    distance: float
    guided: dict[float, float]


def judged(pictures: Sequence[Pixels], prompts: Sequence[Prompt]) -> list[float | None]:
    """Strict verdicts of the counting scorer, None where it cannot tell."""
    options = CountingOptions(mode="strict")
    items: list[ScorerItem[GenEvalTarget, JudgeOptions]] = [
        ScorerItem(prompt.text, picture, GenEvalTarget.model_validate(prompt.target), options)
        for prompt, picture in zip(prompts, pictures, strict=True)
    ]
    outcomes = CountingScorer().score(items)
    return [o.reward if isinstance(o, Scored) else None for o in outcomes]


def asked(state: TrainState, purpose: str, *, unseen: bool = False) -> PromptStream:
    """The counting reward's prompts, of training or of the probe, in an order of their own."""
    config = state.config
    prompts = config.heldout.prompts if unseen else config.prompts
    sets = [one for one in prompts if one.reward == CountingScorer.name]
    return PromptStream(sets, config.run.seed, purpose)


def rolled_out(state: TrainState, count: int) -> list[ScoredGroup]:
    """Groups of the start on training prompts of the counting reward, judged strictly."""
    texts, stream = TextCache(state.backbone), asked(state, "train")
    groups = []
    for index in track(range(count), "rolling out"):
        (prompt,) = stream.take(1)
        batch = fresh_batch(state, texts, (index,), [prompt])
        path = batch.trajectory
        rewards = judged(to_pixels(state.backbone.decode(path.final)), [prompt] * batch.size)
        groups.append(ScoredGroup.of(Group(index, prompt, path, 0), rewards))
    return groups


def fresh_batch(
    state: TrainState, texts: TextCache, keys: tuple[int, ...], prompts: Sequence[Prompt]
) -> Batch:
    """One group per prompt by the current generator; `keys`: the groups' indices."""
    config = state.config
    condition, size = texts.encode([prompt.text for prompt in prompts]), config.groups.size
    named = [("rollout", config.run.seed, key, i) for key in keys for i in range(size)]
    noise = normals(state.backbone.latent_shape, named).to(state.backbone.device)
    velocity = state.networks.velocity("generator")
    path = sampled(velocity, noise, condition.repeat(size), config.rollout)
    return Batch(keys, size, condition, path)


def looks(state: TrainState, batch: Batch) -> Iterator[tuple[Noised, Conditioning]]:
    """Every look at every picture, with noises that groups share and variants do too."""
    condition, shape = batch.condition.repeat(batch.size), state.backbone.latent_shape
    for look, (step, at) in enumerate(LOOKS):
        j = torch.full((batch.samples,), step, device=state.backbone.device)
        e = normals(shape, [("look", key, look) for key in batch.keys])
        e = e.repeat_interleave(batch.size, 0).to(state.backbone.device)
        t = torch.full((batch.samples,), at, device=state.backbone.device)
        path = batch.trajectory.step(j)
        yield noised_target(path, e, t, "mixed"), condition


@torch.no_grad()
def known(state: TrainState, unseen: Sequence[ScoredBatch]) -> tuple[list[float], float, float]:
    """(ranking accuracy of each unseen group, tilt, distance) of phi against the teacher."""
    ranking, tilts, distances = list[float](), list[float](), list[float]()
    for scored in unseen:
        advantage = group_advantages(state, scored).advantage.values
        total: Tensor = torch.zeros_like(scored.rewards)
        for noised, condition in looks(state, scored.batch):
            one = torch.ones_like(noised.t)
            v = state.networks.velocity("surrogate")(noised.x_t, noised.t, condition)
            ref = state.networks.velocity("teacher")(noised.x_t, noised.t, condition)
            d = losses.denoising_distance(v, noised.v_star, one)
            gain = (losses.denoising_distance(ref, noised.v_star, one) - d).view_as(total)
            total += gain
            tilts.append(float((advantage * gain).mean()))
            distances.append(float((v - ref).square().mean()))
        pairs = zip(total, scored.rewards, strict=True)
        ranking += [losses.ranking_accuracy(s[None], r[None])[0] for s, r in pairs]
    distance = (sum(distances) / len(distances)) ** 0.5
    tilt = sum(tilts) / len(tilts) / distance if distance else 0.0
    return ranking, tilt, distance


def steered(state: TrainState, strength: float) -> Velocity:
    """The guided teacher + strength (v_phi - v_teacher), where phi speaks."""
    config, velocity = state.config, state.networks.velocity
    cfg, t_min = config.generator.teacher_cfg, config.surrogate.t_min

    def call(x: Latents, t: PerSample, condition: Conditioning) -> Latents:
        v, plain = state.backbone.guidance.both(
            velocity("teacher"), x, t, condition, state.uncondition, cfg
        )
        if strength and float(t[0]) >= t_min:
            v = v + strength * (velocity("surrogate")(x, t, condition) - plain)
        return v

    return call


@torch.no_grad()
def rewards_by_tag(
    state: TrainState,
    pictures: int,
    sample: Callable[[Latents, Conditioning], Latents],
    *,
    unseen: bool = False,
) -> dict[str, list[float]]:
    """Rewards of what `sample` makes of noise and prompts, the same for every sampler."""
    texts, found = TextCache(state.backbone), dict[str, list[float]]()
    prompts = asked(state, "guided", unseen=unseen).take(pictures)
    for first in range(0, pictures, 64):
        part = prompts[first : first + 64]
        condition = texts.encode([prompt.text for prompt in part])
        keys = [("guided", first + i) for i in range(len(part))]
        noise = normals(state.backbone.latent_shape, keys).to(state.backbone.device)
        rewards = judged(to_pixels(state.backbone.decode(sample(noise, condition))), part)
        for prompt, reward in zip(part, rewards, strict=True):
            if reward is not None:
                found.setdefault(prompt.tag, []).append(reward)
    return found


def mean_reward(by_tag: Mapping[str, Sequence[float]]) -> float:
    """Over all pictures."""
    return sum(map(sum, by_tag.values())) / sum(map(len, by_tag.values()))


def guided(state: TrainState, strength: float, pictures: int) -> float:
    """Mean reward of the teacher that phi guides."""
    velocity, shift = steered(state, strength), state.config.rollout.flow_shift

    def sample(noise: Latents, condition: Conditioning) -> Latents:
        final, _ = sample_guided(
            velocity,
            noise,
            condition,
            None,
            steps=GUIDED_STEPS,
            shift=shift,
            guidance=1,
            rule=state.backbone.guidance,
        )
        return final

    return mean_reward(rewards_by_tag(state, pictures, sample))


def measure(
    name: str,
    overrides: Sequence[str],
    groups: Sequence[ScoredGroup],
    unseen: int,
    strengths: Sequence[float],
    pictures: int,
) -> Found:
    """Trains phi once over all groups but the last ``unseen``, then looks at those."""
    state = start(overrides)
    texts, device = TextCache(state.backbone), state.backbone.device
    size, seen = state.config.groups.per_step, groups[: len(groups) - unseen]
    steps, began = len(seen) // size, time.perf_counter()
    for step in track(range(steps), name):
        scored = scored_batch(seen[step * size : (step + 1) * size], texts, device)
        update_surrogate(state, scored, step, step / steps)
    seconds = time.perf_counter() - began
    speaking = [one for one in groups[len(seen) :] if one.rewards.std() > 0]
    rows = range(0, len(speaking), size)
    parts = [scored_batch(speaking[i : i + size], texts, device) for i in rows]
    ranking, tilt, distance = known(state, parts)
    spread = torch.tensor(ranking)
    error = float(spread.std() / len(ranking) ** 0.5)
    updates = steps * state.config.surrogate.updates
    painted = {strength: guided(state, strength, pictures) for strength in strengths}
    return Found(name, updates, seconds, float(spread.mean()), error, tilt, distance, painted)


def start(overrides: Sequence[str] = ()) -> TrainState:
    """All roles of the embedded model, at their start."""
    return state_of(load_config(CONFIG, [*STILL, *overrides]))


def state_of(config: Config) -> TrainState:
    """All roles at their start, in this process."""
    backbone = load_backbone(config.model, config.compute)
    return TrainState(backbone, build_networks(backbone, config), config)


def show(found: Sequence[Found]) -> None:
    """One line per variant, and its ratio to the first."""
    guides = [f"guided x{strength:g}" for strength in found[0].guided]
    table = Table(
        "variant", "updates", "ranking", "+-", "tilt", "ratio", "distance", *guides, "s an update"
    )
    for one in found:
        numbers = (
            one.ranking,
            one.error,
            one.tilt,
            one.tilt / (found[0].tilt or math.nan),
            one.distance,
            *one.guided.values(),
        )
        shown = [f"{number:.3f}" for number in numbers]
        table.add_row(one.variant, str(one.updates), *shown, f"{one.seconds / one.updates:.2f}")
    Console().print(table)


def add_variants(parser: argparse.ArgumentParser) -> None:
    """What is compared, and where the figures go."""
    parser.add_argument(
        "--variant", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE")
    )
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the configuration as it is and every variant of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.surrogate", description=__doc__)
    parser.add_argument("--groups", type=int, default=480, help="that phi is trained on")
    parser.add_argument("--unseen", type=int, default=160, help="that it is asked about")
    parser.add_argument("--strength", type=float, nargs="*", default=[0, 2, 4], metavar="W")
    parser.add_argument("--pictures", type=int, default=480, help="of the guided teacher")
    add_variants(parser)
    args = parser.parse_args(arguments)
    groups = rolled_out(start(args.overrides), args.groups + args.unseen)
    variants = [[CONFIG.name], *args.variant]
    found = [
        measure(
            name,
            [*args.overrides, *changes],
            groups,
            args.unseen,
            args.strength,
            args.pictures,
        )
        for name, *changes in variants
    ]
    show(found)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
