"""One optimizer per trained role, with gradient clipping, a schedule, and a state without pickle.

A gradient that is not finite stops the run with the role's name; the weights stay as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.config import Betas, OptimizerConfig, OptimizerKind
from trainer.errors import ConfigError, TrainingDivergedError
from trainer.optim.muon import Muon

MUON_MOMENTUM = 0.9
MUON_ITERATIONS = 4  # of Newton-Schulz: the singular values need not come closer to 1


def schedule_factor(config: OptimizerConfig, progress: float) -> float:
    """Share of the learning rate at `progress` in [0, 1] of the run."""
    p = min(max(progress, 0.0), 1.0)
    if config.schedule == "constant":
        return 1.0
    left = 1 - p if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * p))
    return config.final_lr + (1 - config.final_lr) * left


class RoleOptimizer:
    """AdamW or Muon on the parameters of one role."""

    def __init__(
        self,
        role: str,
        parameters: Sequence[Tensor],
        lr: float,
        betas: Betas,
        config: OptimizerConfig,
        kind: OptimizerKind = "adamw",
    ) -> None:
        self.role = role
        self.lr = lr
        self._config = config
        self._parameters = list(parameters)
        self._optimizer: torch.optim.Optimizer
        if kind == "muon":
            self._optimizer = self._muon()
        else:
            self._optimizer = torch.optim.AdamW(
                self._parameters,
                lr=lr,
                betas=betas,
                eps=config.eps,
                weight_decay=config.weight_decay,
                foreach=True,
            )

    def _muon(self) -> torch.optim.Optimizer:
        """Momentum whose matrix is made orthogonal before each step (Jordan et al. 2024)."""
        odd = [tuple(p.shape) for p in self._parameters if p.ndim != 2]
        if odd:
            raise ConfigError(
                f"{self.role}.optimizer = 'muon' moves matrices only, and an adapter of this model "
                f"has shape {odd[0]}; use 'adamw', or leave convolutions out of lora.targets"
            )
        return Muon(
            self._parameters,
            self.lr,
            weight_decay=self._config.weight_decay,
            momentum=MUON_MOMENTUM,
            iterations=MUON_ITERATIONS,
        )

    def step(self, progress: float) -> float:
        """Clips the accumulated gradient, steps, clears it; returns the norm before clipping."""
        norm = float(
            torch.nn.utils.clip_grad_norm_(self._parameters, self._config.grad_norm, foreach=True)
        )
        if not math.isfinite(norm):
            raise TrainingDivergedError(
                f"the gradient of the {self.role} is {norm}; resume from the last checkpoint with "
                f"a lower {self.role.removesuffix('_ema')}.lr (now {self.lr:g})"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * schedule_factor(self._config, progress)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by name, for a checkpoint."""
        saved: dict[str, Tensor] = {}
        for i, parameter in enumerate(self._parameters):
            for key, value in self._optimizer.state.get(parameter, {}).items():
                saved[f"{i}.{key}"] = value
        return saved

    def load_state(self, saved: dict[str, Tensor]) -> None:
        """Takes up what `state` gave, also on another device."""
        self._optimizer.state.clear()
        for name, value in saved.items():
            index, key = name.split(".", 1)
            parameter = self._parameters[int(index)]
            device = "cpu" if key == "step" else parameter.device
            self._optimizer.state[parameter][key] = value.to(device, torch.float32, copy=True)
