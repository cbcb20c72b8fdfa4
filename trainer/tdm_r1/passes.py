"""A network's pass over many samples whose activations do not fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from trainer.arithmetic.shapes import Latents


@contextmanager
def in_parts(network: Callable[[slice], Latents], parts: Sequence[slice]) -> Iterator[Latents]:
    """The output of `network` over all `parts` in order, for a loss that needs it as a whole.

    The block must call backward on its loss; the parameters have their gradient after it. Several
    parts are passed twice: without gradient for the block, then one by one with what the block's
    loss says of their output (gradient caching, Gao et al. 2021, arXiv:2101.06983).
    """
    if len(parts) == 1:
        yield network(parts[0])
        return
    with torch.no_grad():
        output = torch.cat([network(part) for part in parts])
    output.requires_grad_()
    yield output
    if output.grad is not None:
        for part in parts:
            torch.autograd.backward(network(part), output.grad[part])
