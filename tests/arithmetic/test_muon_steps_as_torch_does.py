"""Muon takes the steps of torch.optim.Muon, which rounds its matrices to bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainer.optim.muon import Match, Muon, orthogonal

SHAPES = ((4, 16), (16, 4), (8, 8), (8, 8), (32, 8))
BFLOAT16 = 2**-7


def stepped(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(9)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


@pytest.mark.parametrize(
    ("match", "theirs"), [("spectral", "original"), ("adamw", "match_rms_adamw")]
)
def test_the_steps_are_those_of_torch(match: Match, theirs: str) -> None:
    mine, other = weights(), weights()
    lr, steps = 0.1, 6
    stepped(Muon(mine, lr, momentum=0.9, weight_decay=0.2, iterations=4, match=match), mine, steps)
    known = torch.optim.Muon(
        other, lr=lr, momentum=0.9, weight_decay=0.2, ns_steps=4, adjust_lr_fn=theirs
    )
    stepped(known, other, steps)
    for start, weight, expected in zip(weights(), mine, other, strict=True):
        moved = float((expected - start).detach().abs().max())
        assert float((weight - expected).detach().abs().max()) < 4 * BFLOAT16 * moved


def test_every_singular_value_comes_near_one() -> None:
    generator = torch.Generator().manual_seed(1)
    tall: Tensor = torch.randn(3, 12, 5, generator=generator)
    tall[1] *= 1e-3
    values = torch.linalg.svdvals(orthogonal(tall, 5))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_a_matrix_of_zeros_does_not_move() -> None:
    assert orthogonal(torch.zeros(2, 3, 4), 5).abs().max() == 0


def test_a_parameter_without_gradient_stays() -> None:
    moved, left = weights()[:2]
    before = left.detach().clone()
    moved.grad = torch.ones_like(moved)
    Muon([moved, left], 0.1).step()
    assert torch.equal(left.detach(), before)
