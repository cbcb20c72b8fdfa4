"""One module's part of a LoRA, and how parts of different rank and scale become one adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.errors import ModelError


@dataclass(frozen=True)
class Part:
    """What a LoRA adds to one linear layer: alpha / rank times up @ down.

    down: (rank, in), A in the paper (arXiv 2106.09685). up: (out, rank), B. alpha: None where the
    file does not say.
    """

    down: Tensor
    up: Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank, of a part that has an alpha."""
        if self.alpha is None:
            raise ModelError("a LoRA without alpha has no scale")
        return self.alpha / self.rank


Parts = dict[str, Part]
"""Module names as diffusers has them, to what is added there."""


def unified(parts: Mapping[str, Part]) -> tuple[int, float, Parts]:
    """(rank, alpha, parts) of one adapter that acts as the given ones do.

    The scale that most modules have remains, and others are folded into `up`. Modules of lower rank
    are filled with zeros, which stay zero in training: they keep their rank.
    """
    rank = max(part.rank for part in parts.values())
    if len({(part.rank, part.alpha) for part in parts.values()}) == 1:
        return rank, next(iter(parts.values())).scale * rank, dict(parts)
    scale = Counter(part.scale for part in parts.values()).most_common(1)[0][0]
    one = {
        name: Part(
            pad(part.down, (0, 0, 0, rank - part.rank)),
            pad(part.up * (part.scale / scale), (0, rank - part.rank)),
            scale * rank,
        )
        for name, part in parts.items()
    }
    return rank, scale * rank, one


def folded(parts: Mapping[str, Part]) -> Parts:
    """The same with alpha = rank: programs that know no alpha then act at full strength."""
    return {
        name: replace(part, up=part.up * part.scale, alpha=float(part.rank))
        for name, part in parts.items()
    }


def fused(parts: tuple[Part, ...]) -> Part:
    """One part for a layer that computes what those layers do, one below the other.

    downs: below each other; ups: along the diagonal. All have the same rank and scale.
    """
    alphas = [part.scale * part.rank for part in parts]
    return Part(
        torch.cat([part.down for part in parts]),
        _diagonal_of([part.up for part in parts]),
        sum(alphas),
    )


def split(part: Part, shares: tuple[int, ...], where: str) -> list[Part | None]:
    """The parts of a fused layer; where `fused` made it, those it was made of, to the last bit.

    shares: of the rows, in units of the narrowest. None: that layer was not adapted.

    Raises:
        ModelError: the rows cannot be shared out so.
    """
    rows, count = part.up.shape[0], len(shares)
    if rows % sum(shares):
        raise ModelError(f"{where} has {rows} rows, which are no {count} layers in one")
    unit = rows // sum(shares)
    ups = torch.split(part.up, [unit * share for share in shares])
    if part.rank % count == 0 and _diagonal(ups, part.rank // count):
        rank = part.rank // count
        alpha = None if part.alpha is None else part.alpha / count
        found = [
            Part(down.contiguous(), up[:, i * rank : (i + 1) * rank].contiguous(), alpha)
            for i, (down, up) in enumerate(zip(part.down.chunk(count), ups, strict=True))
        ]
        return [one if one.down.any() or one.up.any() else None for one in found]
    return [Part(part.down.clone(), up.contiguous(), part.alpha) for up in ups]


def _diagonal_of(ups: list[Tensor]) -> Tensor:
    """The matrices along the diagonal of one, zeros elsewhere."""
    blocks: Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return blocks


def _diagonal(ups: tuple[Tensor, ...], rank: int) -> bool:
    """Whether each has values in its own columns alone."""
    return not any(
        up[:, : i * rank].any() or up[:, (i + 1) * rank :].any() for i, up in enumerate(ups)
    )
