"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) in single precision.

Matrices of one shape are made orthogonal together, and in float32: `torch.optim.Muon` does it one
by one in bfloat16, which takes fourteen times as long on CPUs without bfloat16 arithmetic. The
steps and the state are the same up to rounding.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0 of those that stay within 0.7 and 1.2 or so
Match = Literal["spectral", "adamw"]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose matrix is made orthogonal before each step; decoupled weight decay.

    match: what the learning rate is comparable with. "spectral": the step's spectral norm, lr
    sqrt(max(1, rows / columns)); "adamw": the step's RMS, 0.2 lr sqrt(max(rows, columns)) (Liu et
    al. 2025). Parameters must be matrices.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
        match: Match = "spectral",
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._iterations = iterations
        self._match = match

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for parameters in alike.values():
                self._step(parameters, group["lr"], group["momentum"], group["weight_decay"])

    def _step(self, parameters: list[Tensor], lr: float, momentum: float, decay: float) -> None:
        """The same for matrices of one shape."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = [self._buffer(p) for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        looked_ahead = torch._foreach_lerp(gradients, buffers, momentum)
        steps = orthogonal(torch.stack(looked_ahead), self._iterations).unbind()
        if decay:
            torch._foreach_mul_(parameters, 1 - lr * decay)
        torch._foreach_add_(parameters, steps, alpha=-lr * self._scale(*parameters[0].shape))

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer

    def _scale(self, rows: int, columns: int) -> float:
        if self._match == "adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        return math.sqrt(max(1.0, rows / columns))


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """(N, rows, columns) with all singular values near 1, by Newton-Schulz iterations.

    A matrix of zeros stays one.
    """
    a, b, c = QUINTIC
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT
