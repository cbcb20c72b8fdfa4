"""Pictures that an evaluation keeps for the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shot:
    """A picture of the gallery: who made it, for which prompt, and the server's score."""

    policy: str
    tag: str
    index: int
    prompt: str
    png: bytes
    score: float | None = None
