"""One resumable optimisation run: the loop that the pretraining stages share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

SAVE_EVERY_S = 120.0


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear warm-up, constant, then a cosine over the last `decay` share."""

    lr: float
    iterations: int
    warmup: int = 200
    decay: float = 0.6
    floor: float = 0.01

    def at(self, iteration: int) -> float:
        """The learning rate of an iteration (counted from 0)."""
        rise = min(1.0, (iteration + 1) / self.warmup)
        left = (self.iterations - iteration) / (self.decay * self.iterations)
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left))
        return self.lr * rise * max(self.floor, fall)


def optimise(
    name: str,
    model: nn.Module,
    loss: Callable[[], torch.Tensor],
    schedule: Schedule,
    folder: Path,
    *,
    seed: int,
    ema_decay: float = 0.999,
) -> nn.Module:
    """Minimise `loss` over the model's parameters and return the model with its EMA weights.

    Saves to `folder/<name>.pt` every two minutes and resumes from there; random numbers are seeded
    again at each resume, so a run that was interrupted differs from one that was not.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.lr, betas=(0.9, 0.98), weight_decay=1e-3, fused=True
    )
    swa: Any = torch.optim.swa_utils  # carries no types
    average = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(ema_decay))
    checkpoint = folder / f"{name}.pt"
    start = _restore(checkpoint, model, average, optimizer)
    torch.manual_seed(seed + 7919 * start)
    saved_at, recent = time.monotonic(), 0.0
    with _progress() as progress:
        task = progress.add_task(name, total=schedule.iterations, completed=start, loss="")
        for iteration in range(start, schedule.iterations):
            for group in optimizer.param_groups:
                group["lr"] = schedule.at(iteration)
            value = loss()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            now = float(value.detach())
            recent = now if iteration == start else recent + 0.02 * (now - recent)
            progress.update(task, advance=1, loss=f"loss {recent:.4f}")
            last = iteration + 1 == schedule.iterations
            if last or time.monotonic() - saved_at > SAVE_EVERY_S:
                _save(checkpoint, iteration + 1, model, average, optimizer)
                saved_at = time.monotonic()
                progress.console.print(f"{name} {iteration + 1} loss {recent:.4f}")
    model.load_state_dict(average.module.state_dict())
    return model.eval()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )


def _save(
    path: Path,
    iteration: int,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {
        "iteration": iteration,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, partial)
    partial.rename(path)


def _restore(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["iteration"])
