"""A run's memory by part, work by phase, traffic and disk; what would not fit, and what to change.

Estimates for CUDA in bf16, from shapes alone: kernels' scratch space and fragmentation come on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.config import Config, with_overrides
from trainer.models.texts import frees_text
from trainer.planning.passes import passes, roles, trained_roles
from trainer.planning.shapes import Costs

FP32 = 4
CONTEXT = 0.8e9  # bytes that CUDA and its libraries take before anything is computed
SPARE = 0.05  # of a card's memory, lost to fragmentation
UTILISATION = (
    0.45  # of a card's peak, reached by large products in bf16 (a goal, not a measurement)
)
CHECKPOINTS = 4  # kept of a run: two, the last good one, and the one that is being written
PNG_SHARE = 0.45  # bytes of a picture's PNG, of its raw bytes: photographs


@dataclass(frozen=True)
class Gpu:
    """A card: bytes of memory, and dense bf16 operations a second by its data sheet."""

    name: str
    memory: float
    flops: float


GPUS = (
    Gpu("RTX 4090", 24e9, 165e12),
    Gpu("L40S", 48e9, 362e12),
    Gpu("H100", 80e9, 989e12),
    Gpu("H200", 141e9, 989e12),
)


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    memory: bytes by part, on the device; start: while the prompts are encoded. work: operations of
    an iteration by phase; passes: over the whole batch. disk: bytes of the checkpoints kept. http:
    bytes of an iteration's pictures.
    """

    memory: dict[str, float]
    work: dict[str, float]
    passes: dict[str, float]
    start: float
    disk: float
    http: float

    @property
    def total(self) -> float:
        """Bytes on the device at most."""
        return max(self.start, sum(self.memory.values()))

    def seconds(self, gpu: Gpu) -> float:
        """Of one iteration, rewards aside."""
        return sum(self.work.values()) / (gpu.flops * UTILISATION)

    def fits(self, gpu: Gpu) -> bool:
        """Whether the card holds it."""
        return self.total <= gpu.memory * (1 - SPARE)


def plan(config: Config, cost: Costs) -> Plan:
    """The plan of a configuration, on a card."""
    groups = config.groups
    samples = groups.size * groups.per_step
    of_batch = passes(config)
    states = (3 * config.rollout.k_steps + 1) * cost.latent * FP32
    window = config.server.window if config.server.window is not None else groups.per_step
    trajectories = states * groups.size * (2 * groups.per_step + window)
    adapters = cost.adapter * FP32 * (roles(config) + 3 * trained_roles(config))
    memory = {
        "frozen base": cost.network,
        "text encoders": 0.0 if frees_text(config.compute, "cuda") else cost.text_encoders,
        "VAE": cost.vae,
        "adapters, moments, gradients": adapters,
        "trajectories": trajectories,
        "text": cost.condition * (groups.per_step + _at_once(config, samples)),
        "activations": _activations(config, cost, samples),
        "CUDA itself": CONTEXT,
    }
    work = {phase: count * samples * cost.forward for phase, count in of_batch.items()}
    work["pictures"] = samples * cost.decode
    saved = cost.adapter * FP32 * (roles(config) + 2 * trained_roles(config))
    disk = CHECKPOINTS * (saved + states * groups.size * (window + groups.per_step))
    start = cost.network + cost.text_encoders + cost.vae + adapters + CONTEXT
    return Plan(memory, work, of_batch, start, disk, samples * 3 * cost.pixels * PNG_SHARE)


def _at_once(config: Config, samples: int) -> int:
    """Samples of a pass without gradient."""
    return min(config.compute.passed_at_once or samples, samples)


def _activations(config: Config, cost: Costs, samples: int) -> float:
    """The most that any phase keeps or works with at once."""
    compute = config.compute
    trained = min(compute.micro_batch or samples, samples)
    border, inside = cost.kept_by_block
    with_gradient = trained * (border + inside if compute.checkpointing else cost.kept)
    return max(
        with_gradient + trained * cost.working,
        2 * _at_once(config, samples) * cost.working,  # guidance doubles the batch
        min(cost.decoded_at_once, samples) * cost.decode_working,
    )


def remedies(config: Config, gpu: Gpu, measured: Costs) -> list[str]:
    """Overrides with which the configuration fits the card: few keys, and little slower.

    Empty if it fits as it is, or if nothing here makes it fit.
    """
    if plan(config, measured).fits(gpu):
        return []
    for overrides in _candidates(config):
        if plan(with_overrides(config, overrides), measured).fits(gpu):
            return overrides
    return []


def _candidates(config: Config) -> Iterator[list[str]]:
    """From the change that costs least time on."""
    start = config.compute.micro_batch or config.groups.size * config.groups.per_step
    smaller = []
    while start > 1:
        start //= 2
        smaller.append(f"compute.micro_batch={start}")
    yield from ([one] for one in smaller)
    yield ["compute.checkpointing=true"]
    yield from (["compute.checkpointing=true", one] for one in smaller)
