"""Where an update's batches come from: rollouts kept in a bounded window, scores awaited.

Groups are rolled out ahead while the window has room, by the generator of the moment; whatever is
scored is handed on oldest first, and what is too old for the generator still trains the surrogate.
What was scored before is handed on again where a run replays.
An interrupted wait puts back what it took, so that no group is lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from shared.errors import RewardError
from trainer.arithmetic.randomness import normals
from trainer.arithmetic.trajectory import Trajectory
from trainer.errors import OtherProcessError, UnscoredError
from trainer.models.texts import TextCache
from trainer.rewards.groups import Group, ScoredGroup
from trainer.rewards.inflight import to_pixels
from trainer.run.interrupt import Interrupt
from trainer.run.state import Run
from trainer.tdm_r1.state import Batch, Metrics, ScoredBatch
from trainer.tdm_r1.update import timed

POLL_S = 0.2


def fill_window(run: Run, metrics: Metrics) -> Batch | None:
    """Rolls out and submits batches while there is room; the last one, if of this version."""
    fresh = _own_groups(run)
    config = run.config
    window = config.groups.per_step if config.server.window is None else config.server.window
    while _in_window(run) <= window // run.state.processes.count:
        fresh = roll_out(run, metrics, submit=True)
    return fresh


def _in_window(run: Run) -> int:
    """Groups in flight, less those that wait for people in a window of their own."""
    aside = run.inflight.waiting_for_people if _room(run) is not None else 0
    return run.inflight.count - aside


def _room(run: Run) -> dict[str, int] | None:
    """How many more groups may wait for people; None where the window is for all alike."""
    human, limit = run.inflight.human_rewards, run.config.server.human_window
    if limit is None or all(s.reward in human for s in run.config.prompts):
        return None
    return dict.fromkeys(human, limit - run.inflight.waiting_for_people)


def _own_groups(run: Run) -> Batch | None:
    """The batch that the current generator has rolled out already, in a run stopped meanwhile."""
    waiting = [e.group for e in run.inflight.snapshot() if e.group.version == run.iteration]
    newest = waiting[-run.own_groups :]
    if len(newest) != run.own_groups:
        return None
    return batch_of(newest, run.texts, run.state.backbone.device)


def roll_out(run: Run, metrics: Metrics, *, submit: bool) -> Batch:
    """This process's groups of a batch by the current weights; submitted, or for fake and KL."""
    config, own = run.config, run.state.processes.share(run.config.groups.per_step)
    with timed(metrics, "time/rollout"):
        size, count = config.groups.size, config.groups.per_step
        prompts = run.stream.take(count, _room(run))[own]
        first, run.next_group = run.next_group, run.next_group + count
        keys = tuple(range(first, first + count))[own]
        condition = run.texts.encode([p.text for p in prompts])
        trajectory = run.method.sample(
            _noise(run, keys, "rollout"),
            condition.repeat(size),
            _fresh_noise(run, keys),
            run.iteration,
        )
        if submit:
            pixels = to_pixels(run.state.backbone.decode(trajectory.final))
            for i, (key, prompt) in enumerate(zip(keys, prompts, strict=True)):
                rows = slice(i * size, (i + 1) * size)
                group = Group(key, prompt, trajectory.samples(rows), run.iteration)
                run.inflight.add(group, pixels[rows])
    return Batch(keys, size, condition, trajectory)


def _noise(run: Run, keys: tuple[int, ...], purpose: str) -> Tensor:
    seed, size = run.config.run.seed, run.config.groups.size
    backbone = run.state.backbone
    named = [(seed, key, i, purpose) for key in keys for i in range(size)]
    return normals(backbone.latent_shape, named).to(backbone.device)


def _fresh_noise(run: Run, keys: tuple[int, ...]) -> Tensor | None:
    """The noise of the stochastic sampler, one per step; None for the deterministic one."""
    if run.config.rollout.mode == "deterministic":
        return None
    steps = range(run.config.rollout.k_steps)
    return torch.stack([_noise(run, keys, f"rollout step {j}") for j in steps])


def await_scores(run: Run, interrupt: Interrupt, metrics: Metrics) -> ScoredBatch | None:
    """Waits for a batch of scored groups; what is too old trains phi alone, beside them.

    None if someone asked for a stop meanwhile. What the reward server does to one process is raised
    in all of them, so that they save the run together.
    """
    taken: list[ScoredGroup] = []
    late: list[ScoredGroup] = []
    start, failure = time.monotonic(), None
    try:
        _take(run, interrupt, metrics, taken, late)
    except (RewardError, UnscoredError) as error:
        failure = error
        if run.state.processes.count > 1:
            run.log.say(f"saving the run as soon as the other processes have their scores: {error}")
    except BaseException:
        _put_back(run, taken + late)
        raise
    failed = run.state.processes.any(failure is not None)
    if interrupt.agreed(run.state.processes) or failed:
        _put_back(run, taken + late)
        if failed:
            raise failure or OtherProcessError("another process of this run says what went wrong")
        return None
    metrics["time/rewards"] = time.monotonic() - start
    _note_staleness(run, taken, late, metrics)
    run.replay.add(late + taken)
    if run.state.processes.any(bool(late)):
        told = late or [_silent(taken[0])]
        scored_late = scored_batch(told, run.texts, run.state.backbone.device)
        run.method.update(None, scored_late, run.iteration, run.progress)
    return scored_batch(taken, run.texts, run.state.backbone.device)


def _take(
    run: Run,
    interrupt: Interrupt,
    metrics: Metrics,
    taken: list[ScoredGroup],
    late: list[ScoredGroup],
) -> None:
    """Fills `taken` with a batch, and `late` with what is too old for the generator."""
    wanted = run.own_groups
    while len(taken) < wanted and not interrupt.requested:
        for scored in run.inflight.collect(wanted - len(taken), POLL_S):
            (late if _is_late(run, scored.group) else taken).append(scored)
        if len(taken) == wanted:
            break
        if _in_window(run) < wanted - len(taken):
            roll_out(run, metrics, submit=True)
        else:
            run.log.waiting(run.iteration, run.inflight.count)


def replayed(run: Run) -> ScoredBatch | None:
    """Groups scored before, if this iteration is for them; None: it is for new scores."""
    groups = run.replay.draw(run.own_groups, run.config.run.seed, run.iteration)
    return scored_batch(groups, run.texts, run.state.backbone.device) if groups else None


def _silent(scored: ScoredGroup) -> ScoredGroup:
    """A group that says nothing, for a process that has to take part in others' update."""
    return ScoredGroup(scored.group, torch.full_like(scored.rewards, torch.nan))


def _put_back(run: Run, groups: list[ScoredGroup]) -> None:
    for scored in groups:
        run.inflight.add_scored(scored)


def _is_late(run: Run, group: Group) -> bool:
    return run.iteration - group.version > run.config.groups.max_staleness


def _note_staleness(
    run: Run, taken: list[ScoredGroup], late: list[ScoredGroup], metrics: Metrics
) -> None:
    ages = [run.iteration - scored.group.version for scored in taken]
    metrics["staleness/mean"] = sum(ages) / len(ages)
    metrics["staleness/late_groups"] = len(late)


def batch_of(groups: Sequence[Group], texts: TextCache, device: torch.device) -> Batch:
    """Whole groups of one size as an update takes them."""
    return Batch(
        tuple(g.index for g in groups),
        len(groups[0].trajectory.final),
        texts.encode([g.prompt.text for g in groups]),
        # A resumed run's groups come from a file, into main memory.
        Trajectory.cat([g.trajectory.to(device) for g in groups]),
    )


def scored_batch(
    scored: Sequence[ScoredGroup], texts: TextCache, device: torch.device
) -> ScoredBatch:
    """The same with their rewards."""
    rewards = torch.stack([s.rewards for s in scored]).to(device)
    names = tuple(s.group.prompt.reward for s in scored)
    return ScoredBatch(batch_of([s.group for s in scored], texts, device), rewards, names)
