"""Whether a run fits the card that is there, by `trainer.planning`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.config import Config
from trainer.doctor.surroundings import Finding
from trainer.errors import TrainerError
from trainer.planning.plan import Gpu, plan, remedies
from trainer.planning.shapes import costs


def card() -> Gpu | None:
    """The machine's first CUDA device; its speed is not asked for."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return Gpu(str(found.name), float(found.total_memory), 1.0)


def memory_findings(config: Config, there: Callable[[], Gpu | None] = card) -> list[Finding]:
    """One finding where a run would use a card, none elsewhere."""
    gpu = there()
    if gpu is None or config.compute.device == "cpu":
        return []
    try:
        cost = costs(config)
    except TrainerError as error:
        return [Finding("fail", "memory", str(error))]
    needed = plan(config, cost)
    text = f"{needed.total / 1e9:.1f} GB of {gpu.memory / 1e9:.0f} GB on {gpu.name}"
    if needed.fits(gpu):
        return [Finding("ok", "memory", text)]
    changes = " ".join(f"--set {change}" for change in remedies(config, gpu, cost))
    return [Finding("fail", "memory", text, changes or "a larger card, or a smaller model")]
