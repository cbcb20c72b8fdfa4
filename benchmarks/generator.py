"""Who lags, phi or the generator, and at which of the few steps?

``python -m benchmarks.generator runs/demo`` takes phi and the generator of a finished run and
paints training prompts with every step of the grid made by the generator (S), by the teacher that
phi guides (G), or by the teacher alone (T), all from the same noise. Where G in the place of S
helps, the generator has not yet taken up what phi knows. ``--unseen`` paints the prompts of the
held-out probe instead, whose combinations neither of them was trained on.

``--follow 300`` lets fake score and generator follow that phi, which stands still, from the run's
start, for variants of the configuration side by side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.surrogate import (
    add_variants,
    asked,
    fresh_batch,
    mean_reward,
    rewards_by_tag,
    state_of,
    steered,
)
from trainer.arithmetic.flow import time_grid
from trainer.arithmetic.shapes import Latents
from trainer.config import Config, with_overrides
from trainer.models.backbones import Conditioning
from trainer.models.networks import Role
from trainer.models.rollout import Velocity, sampled
from trainer.models.texts import TextCache
from trainer.run.folder import read_config, surrogate_lora, trained_lora
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import TrainState

PLANS: Final = ("SSSS", "GSSS", "SGSS", "GGSS", "SSTT", "GGTT")
TEACHER_STEPS: Final = 5
"""Small steps a teacher takes for one of the few."""


@dataclass(frozen=True)
class Painted:
    """Mean reward of what a plan or a follower paints, in all and by tag; seconds an iteration."""

    name: str
    overall: float
    by_tag: dict[str, float]
    seconds: float = 0.0


def with_phi(config: Config, run: Path) -> TrainState:
    """All roles at their start, but for phi: that is the run's."""
    state = state_of(config)
    phi, roles = surrogate_lora(run), list[Role](["surrogate", "surrogate_ema"])
    for role in (one for one in roles if one in state.networks.specs):
        state.networks.load_tensors(role, phi.tensors)
    return state


def painted(
    state: TrainState, plan: str, strength: float, pictures: int, *, unseen: bool = False
) -> Painted:
    """What prompts look like when each step is made as the plan's letters say."""
    makers: dict[str, tuple[Velocity, int]] = {
        "S": (state.networks.velocity("generator"), 1),
        "G": (steered(state, strength), TEACHER_STEPS),
        "T": (steered(state, 0.0), TEACHER_STEPS),
    }
    config = state.config.rollout
    grid = list(pairwise(time_grid(config.k_steps, config.flow_shift)))

    def sample(noise: Latents, condition: Conditioning) -> Latents:
        x = noise
        for maker, (u, s) in zip(plan, grid, strict=True):
            velocity, parts = makers[maker]
            for k in range(parts):
                t = x.new_full((x.shape[0],), u + (s - u) * k / parts)
                x = x + (s - u) / parts * velocity(x, t, condition)
        return x

    return result(plan, rewards_by_tag(state, pictures, sample, unseen=unseen))


def result(name: str, by_tag: dict[str, list[float]], seconds: float = 0.0) -> Painted:
    """The means of rewards by tag."""
    means = {tag: sum(values) / len(values) for tag, values in sorted(by_tag.items())}
    return Painted(name, mean_reward(by_tag), means, seconds)


def followed(
    name: str, state: TrainState, iterations: int, pictures: int, *, unseen: bool = False
) -> Painted:
    """What the averaged generator paints after following phi for so many iterations."""
    texts, stream = TextCache(state.backbone), asked(state, "train")
    count, began = state.config.groups.per_step, time.perf_counter()
    for i in track(range(iterations), name):
        keys = tuple(range(i * count, (i + 1) * count))
        fresh = fresh_batch(state, texts, keys, stream.take(count))
        update_fake(state, fresh, i, i / iterations)
        update_generator(state, fresh, i, i / iterations, rewarded=True)
    seconds = (time.perf_counter() - began) / iterations if iterations else 0.0
    config, velocity = state.config.rollout, state.networks.velocity("generator_ema")

    def sample(noise: Latents, condition: Conditioning) -> Latents:
        return sampled(velocity, noise, condition, config).final

    return result(name, rewards_by_tag(state, pictures, sample, unseen=unseen), seconds)


def show(title: str, found: Sequence[Painted]) -> None:
    """One column each, one line per tag."""
    table = Table("", *[one.name for one in found], title=title)
    for tag in found[0].by_tag:
        table.add_row(tag, *[f"{one.by_tag[tag]:.3f}" for one in found])
    table.add_row("all", *[f"{one.overall:.3f}" for one in found], style="bold")
    if any(one.seconds for one in found):
        table.add_row("s an iteration", *[f"{one.seconds:.2f}" for one in found])
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """The steps of a run's generator, then the variants that follow its phi."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generator", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run with a surrogate")
    parser.add_argument("--plan", nargs="*", default=list(PLANS), help="one letter per step")
    parser.add_argument("--strength", type=float, default=12, metavar="W", help="of phi in G")
    parser.add_argument("--pictures", type=int, default=720)
    parser.add_argument("--unseen", action="store_true", help="paint prompts of the probe")
    parser.add_argument("--follow", type=int, default=0, metavar="ITERATIONS")
    add_variants(parser)
    args = parser.parse_args(arguments)
    config = with_overrides(read_config(args.run), args.overrides)
    for plan in args.plan:
        if len(plan) != config.rollout.k_steps or set(plan) - set("SGT"):
            parser.error(
                f"--plan {plan}: give S, G or T for each of {config.rollout.k_steps} steps"
            )
    state = with_phi(config, args.run)
    state.networks.load_tensors("generator", trained_lora(args.run).tensors)
    plans = [
        painted(state, plan, args.strength, args.pictures, unseen=args.unseen)
        for plan in track(args.plan, "painting")
    ]
    if plans:
        show("S: generator, G: teacher guided by phi, T: teacher", plans)
    followers = list[Painted]()
    if args.follow:
        still = with_phi(config, args.run)
        followers.append(followed("the start", still, 0, args.pictures, unseen=args.unseen))
        for name, *changes in [[args.run.name], *args.variant]:
            own = with_phi(with_overrides(config, changes), args.run)
            followers.append(followed(name, own, args.follow, args.pictures, unseen=args.unseen))
        show(f"after {args.follow} iterations beside a phi that stands still", followers)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(one) for one in (*plans, *followers)]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
