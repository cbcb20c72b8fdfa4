"""Encoded prompts, each encoded once and kept, the least recently used dropped first.

Every prompt is encoded alone: in a batch the numbers would depend, in the last bit, on its company,
and a resumed run would differ from an uninterrupted one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from trainer.models.backbones import Backbone, Conditioning

MAX_BYTES = 512 * 1024 * 1024


class TextCache:
    """Prompts to conditioning, through a backbone."""

    def __init__(self, backbone: Backbone, max_bytes: int = MAX_BYTES) -> None:
        self._backbone = backbone
        self._max_bytes = max_bytes
        self._rows: OrderedDict[str, Conditioning] = OrderedDict()
        self._bytes = 0

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt."""
        return Conditioning.cat([self._row(prompt) for prompt in prompts])

    def _row(self, prompt: str) -> Conditioning:
        row = self._rows.pop(prompt, None)
        if row is None:
            row = self._backbone.encode([prompt])
            self._bytes += row.nbytes
        self._rows[prompt] = row
        while self._bytes > self._max_bytes and len(self._rows) > 1:
            self._bytes -= self._rows.popitem(last=False)[1].nbytes
        return row
