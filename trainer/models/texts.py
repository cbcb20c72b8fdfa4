"""Encoded prompts, each encoded once and kept in main memory, the least recently used go first.

Every prompt is encoded alone: in a batch the numbers would depend, in the last bit, on its company,
and a resumed run would differ from an uninterrupted one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch

from trainer.config import ComputeConfig
from trainer.models.backbones import Backbone, Conditioning

MAX_BYTES = 8 * 1024**3  # of a T5's and two CLIPs' output for 3,000 prompts
HOST = torch.device("cpu")


def frees_text(compute: ComputeConfig, device: str) -> bool:
    """Whether the text encoders go before training, on a device of this kind."""
    return compute.text_encoders == "free" or (compute.text_encoders == "auto" and device != "cpu")


class TextCache:
    """Prompts to conditioning, through a backbone."""

    def __init__(self, backbone: Backbone, max_bytes: int = MAX_BYTES) -> None:
        self._backbone = backbone
        self._max_bytes: float = max_bytes
        self._rows: OrderedDict[str, Conditioning] = OrderedDict()
        self._bytes = 0

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, on the backbone's device."""
        rows = Conditioning.cat([self._row(prompt) for prompt in prompts])
        return rows.to(self._backbone.device)

    def settle(self, prompts: Iterable[str]) -> None:
        """Encodes all that will ever be asked for, and gives the encoders' memory back."""
        self._max_bytes = float("inf")
        for prompt in prompts:
            self._row(prompt)
        self._backbone.free_text_encoders()

    def _row(self, prompt: str) -> Conditioning:
        row = self._rows.pop(prompt, None)
        if row is None:
            row = self._backbone.encode([prompt]).to(HOST)
            self._bytes += row.nbytes
        self._rows[prompt] = row
        while self._bytes > self._max_bytes and len(self._rows) > 1:
            self._bytes -= self._rows.popitem(last=False)[1].nbytes
        return row
