"""What one iteration hands to the next, and the batches it works on.

Draws are keyed by (seed, iteration, group, sample, role), so nothing random is stored.
For checkpoints `tensors` and `load_tensors` give and take tensors by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.arithmetic.flow import renoise
from trainer.arithmetic.randomness import Key, integer, normals, permutation, uniform, weighted
from trainer.arithmetic.shapes import GroupValues, Latents, PerSample, Steps
from trainer.arithmetic.trajectory import Step, Trajectory
from trainer.config import Betas, Config, OptimizerKind, TimeRange
from trainer.models.backbones import Backbone, Conditioning
from trainer.models.networks import Networks, Role
from trainer.optim.optimizers import RoleOptimizer
from trainer.processes import ALONE, Processes
from trainer.tdm_r1.targets import Noised, TargetKind, draw_time, noised_target

Metrics = dict[str, float]


@dataclass(frozen=True)
class Batch:
    """Whole groups of `size` samples each, in order: sample i belongs to group i // size.

    keys: the groups' indices in the run, which key their random numbers. condition: one row per
    group.
    """

    keys: tuple[int, ...]
    size: int
    condition: Conditioning
    trajectory: Trajectory

    @property
    def samples(self) -> int:
        """Number of samples in all."""
        return len(self.keys) * self.size


@dataclass(frozen=True)
class ScoredBatch:
    """A batch with one reward per sample, shape (groups, size), NaN where missing.

    names: each group's reward, since advantages never mix rewards.
    """

    batch: Batch
    rewards: GroupValues
    names: tuple[str, ...]


@dataclass
class NormState:
    """Smoothed RMS of g_kl and g_r, for `ratio = "norm_ema"`; NaN before the first."""

    kl: float = math.nan
    reward: float = math.nan

    def update(self, kl: float, reward: float, decay: float) -> None:
        """Starts at the first measurement: no ramp from zero."""
        if math.isnan(self.kl):
            self.kl, self.reward = kl, reward
        self.kl = decay * self.kl + (1 - decay) * kl
        self.reward = decay * self.reward + (1 - decay) * reward


@dataclass(frozen=True)
class Draw:
    """Step j of each sample's trajectory, and where and with which noise to look at it."""

    j: Steps
    step: Step
    e: Latents
    t: PerSample

    def rows(self, index: slice) -> Draw:
        """A selection of samples."""
        return Draw(self.j[index], self.step.rows(index), self.e[index], self.t[index])

    def renoised(self, x_s: Latents) -> Latents:
        """x_t from a (recomputed) x_s."""
        return renoise(x_s, self.e, self.step.s, self.t)


class TrainState:
    """The roles, their optimizers, the text encoder's empty prompt, and smoothed norms."""

    def __init__(
        self,
        backbone: Backbone,
        networks: Networks,
        config: Config,
        processes: Processes = ALONE,
    ) -> None:
        self.backbone = backbone
        self.processes = processes
        self.networks = networks
        self.config = config
        self.uncondition = backbone.encode_unconditional()
        self.norms = NormState()
        self.optimizers: dict[Role, RoleOptimizer] = {}
        generator = config.generator
        self._optimize("generator", generator.lr, generator.betas, generator.optimizer)
        self._optimize("fake", config.fake.lr, config.fake.betas)
        if "surrogate" in networks.specs:
            self._optimize("surrogate", config.surrogate.lr, config.surrogate.betas)

    def _optimize(self, role: Role, lr: float, betas: Betas, kind: OptimizerKind = "adamw") -> None:
        parameters, config = self.networks.parameters(role), self.config.optimizer
        self.optimizers[role] = RoleOptimizer(role, parameters, lr, betas, config, kind)

    def step(self, role: Role, progress: float) -> float:
        """Applies the gradient of a role, summed over processes; its norm before clipping."""
        self.processes.sum_gradients(self.networks.parameters(role))
        norm = self.optimizers[role].step(progress)
        self.networks.changed(role)
        return norm

    def draw(
        self,
        batch: Batch,
        iteration: int,
        role: str,
        t_range: TimeRange,
        *,
        shared: bool,
        t_min: float = 0.0,
        late: bool = False,
    ) -> Draw:
        """(j, t, noise) for every sample; one for all samples of a group if `shared`.

        t_min: times below it are not drawn. late: step j with a probability proportional to j.
        """
        steps = len(batch.trajectory.times) - 1
        keys = self._keys(batch, iteration, role, shared=shared)
        if late:
            drawn = [1 + weighted(range(1, steps + 1), *k, "j") for k in keys]
        else:
            drawn = [integer(1, steps, *k, "j") for k in keys]
        return self._look(batch, self._spread(batch, drawn), keys, t_range, t_min)

    def draws(self, batch: Batch, iteration: int, role: str, t_range: TimeRange) -> list[Draw]:
        """`target.draws` of (j, t, noise) for every sample, each at another step of it."""
        count, steps = self.config.target.draws, len(batch.trajectory.times) - 1
        if count == 1:
            return [self.draw(batch, iteration, role, t_range, shared=False)]
        base = self._keys(batch, iteration, role, shared=False)
        orders = [permutation(steps, *k, "j") for k in base]
        found = []
        for nth in range(count):
            keys = self._keys(batch, iteration, f"{role}.{nth}", shared=False)
            j = self._spread(batch, [1 + order[nth] for order in orders])
            found.append(self._look(batch, j, keys, t_range, 0.0))
        return found

    def second_look(
        self, first: Draw, batch: Batch, iteration: int, role: str, t_min: float
    ) -> Draw:
        """The same steps at times of their own, with a noise common to each group."""
        keys = self._keys(batch, iteration, role, shared=True)
        return self._look(batch, first.j, keys, "full", t_min)

    def _keys(
        self, batch: Batch, iteration: int, role: str, *, shared: bool
    ) -> list[tuple[Key, ...]]:
        """Of the random numbers of each sample, or of each group if `shared`."""
        per_group = 1 if shared else batch.size
        seed = self.config.run.seed
        return [(seed, iteration, g, i, role) for g in batch.keys for i in range(per_group)]

    def _spread(self, batch: Batch, values: list[int]) -> Tensor:
        """One value per sample, from one per sample or one per group."""
        spread = torch.tensor(values).repeat_interleave(batch.samples // len(values))
        return spread.to(self.backbone.device)

    def _look(
        self,
        batch: Batch,
        j: Steps,
        keys: list[tuple[Key, ...]],
        t_range: TimeRange,
        t_min: float,
    ) -> Draw:
        """Time and noise of each key, at steps j."""
        device, repeats = self.backbone.device, batch.samples // len(keys)
        share = torch.tensor([uniform(*k, "t") for k in keys]).repeat_interleave(repeats)
        e = normals(self.backbone.latent_shape, [(*k, "e") for k in keys])
        step, target = batch.trajectory.step(j), self.config.target
        t = draw_time(
            share.to(device),
            step.u,
            step.s,
            segment=t_range == "segment",
            gap=target.t_min_gap,
            t_max=target.t_max,
            t_min=t_min,
            shift=self.config.rollout.flow_shift if target.times == "shifted" else None,
        )
        return Draw(j, step, e.repeat_interleave(repeats, 0).to(device), t)

    def target(self, draw: Draw, kind: TargetKind | None = None) -> Noised:
        """x_t, v* and w of a draw, by the configured target or one of the given kind."""
        return noised_target(draw.step, draw.e, draw.t, kind or self.config.target.kind)

    def micro_batches(self, samples: int, unit: int = 1) -> list[slice]:
        """Slices of so many samples that one pass with gradient may hold, in whole `unit`s.

        A single unit may be more than that.
        """
        limit = self.config.compute.micro_batch or samples
        size = max(1, limit // unit) * unit
        return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training continues from: adapters, moments, smoothed norms."""
        saved = {"norms": torch.tensor([self.norms.kl, self.norms.reward], dtype=torch.float64)}
        for role in self.networks.specs:
            for name, tensor in self.networks.tensors(role).items():
                saved[f"lora/{role}/{name}"] = tensor
        for role, optimizer in self.optimizers.items():
            for name, tensor in optimizer.state().items():
                saved[f"optimizer/{role}/{name}"] = tensor
        return saved

    def load_tensors(self, saved: dict[str, Tensor]) -> None:
        """Takes up what `tensors` gave."""
        self.norms.kl, self.norms.reward = saved["norms"].tolist()
        for role in self.networks.specs:
            self.networks.load_tensors(role, _under(saved, f"lora/{role}/"))
        for role, optimizer in self.optimizers.items():
            optimizer.load_state(_under(saved, f"optimizer/{role}/"))


def _under(saved: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
