"""What the trainer asks of a text-to-image model: encode, velocity, decode, a place for adapters.

Everything architecture-specific (text encoders, packing, latent statistics, time conventions, the
rule of guidance) stays behind this protocol. Roles are adapters, attached and chosen by
`trainer.models.networks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.arithmetic.shapes import Images, Latents, PerSample
from trainer.config import ComputeConfig


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts, one row each: tensors by name, the first dimension of each is the rows.

    lengths: how many tokens of each row count, where that differs (None: all of them do); what is
    beyond is zero. They are on the host, so that nobody waits for a device to learn them.
    """

    tensors: Mapping[str, Tensor]
    lengths: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def replaced(self, **tensors: Tensor) -> Conditioning:
        """The same with other tensors in place of those of these names."""
        return Conditioning({**self.tensors, **tensors}, self.lengths)

    def to(self, device: torch.device) -> Conditioning:
        """The same on another device."""
        return Conditioning({k: t.to(device) for k, t in self.tensors.items()}, self.lengths)

    def repeat(self, times: int) -> Conditioning:
        """Each row `times` times in a row: prompts to the samples of their groups."""
        repeated = {k: t.repeat_interleave(times, 0) for k, t in self.tensors.items()}
        lengths = self.lengths
        return Conditioning(repeated, lengths and tuple(n for n in lengths for _ in range(times)))

    def expand(self, batch: int) -> Conditioning:
        """One row shown `batch` times without copying it (the unconditional prompt)."""
        shown = {k: t.expand(batch, *t.shape[1:]) for k, t in self.tensors.items()}
        return Conditioning(shown, self.lengths and self.lengths * batch)

    def rows(self, index: slice | Sequence[int]) -> Conditioning:
        """A selection of rows."""
        if isinstance(index, slice):
            index = range(len(self))[index]
        # A contiguous selection is a view, not a copy.
        whole = isinstance(index, range) and index.step == 1
        picked = slice(index.start, index.stop) if isinstance(index, range) and whole else [*index]
        lengths = self.lengths and tuple(self.lengths[i] for i in index)
        return Conditioning({k: t[picked] for k, t in self.tensors.items()}, lengths)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Rows of all parts, in order; shorter ones are filled with zeros where lengths say so."""
        lengths = [n for part in parts for n in part.lengths or ()]
        tensors = {
            name: _cat([part[name] for part in parts], fill=bool(lengths))
            for name in parts[0].tensors
        }
        return Conditioning(tensors, tuple(lengths) or None)


def _cat(tensors: Sequence[Tensor], *, fill: bool) -> Tensor:
    if fill and tensors[0].ndim == 3:
        longest = max(t.shape[1] for t in tensors)
        tensors = [functional.pad(t, (0, 0, 0, longest - t.shape[1])) for t in tensors]
    return torch.cat(list(tensors))


class Network(Protocol):
    """A model as some role: v(x_t, t, condition)."""

    def __call__(self, x_t: Latents, t: PerSample, condition: Conditioning, /) -> Latents: ...


class Guidance(Protocol):
    """How a model's prediction is pushed towards its prompt.

    evaluations: network evaluations of one guided prediction.
    """

    evaluations: int

    def guided(
        self,
        network: Network,
        x_t: Latents,
        t: PerSample,
        condition: Conditioning,
        uncondition: Conditioning,
        scale: float,
    ) -> Latents:
        """The guided v. `uncondition` has one row; scale 1 is the model without guidance."""

    def both(
        self,
        network: Network,
        x_t: Latents,
        t: PerSample,
        condition: Conditioning,
        uncondition: Conditioning,
        scale: float,
    ) -> tuple[Latents, Latents]:
        """(guided v, conditional v) from ONE doubled batch."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen text-to-image model. `network` carries the adapters; nothing else is trainable."""

    name: str
    device: torch.device
    network: nn.Module
    latent_shape: tuple[int, ...]
    default_lora_targets: tuple[str, ...]
    guidance: Guidance

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts to conditioning, one row each, exactly as the stock pipeline encodes them."""

    def encode_unconditional(self) -> Conditioning:
        """The one row that guidance leads away from, as the stock pipeline encodes it."""

    def free_text_encoders(self) -> None:
        """Gives their memory back; nothing can be encoded any more."""

    def velocity(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """The network's v = eps - x0 at time t in [0, 1], fp32, under whatever adapter is on."""

    def decode(self, latents: Latents) -> Images:
        """Latents to RGB images in [0, 1]; carries no gradient."""


def torch_device(compute: ComputeConfig) -> torch.device:
    """The device, chosen automatically unless named."""
    if compute.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(compute.device)


def torch_dtype(compute: ComputeConfig) -> torch.dtype:
    """The precision of the frozen base; adapters, states and losses stay in fp32."""
    if compute.dtype == "auto":
        return torch.float32 if torch_device(compute).type == "cpu" else torch.bfloat16
    return torch.bfloat16 if compute.dtype == "bf16" else torch.float32
