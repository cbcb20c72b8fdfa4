"""What a scorer says of one image: a reward, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.schema import ItemErrorCode, Json


@dataclass(frozen=True)
class Scored:
    """A finite reward, usually in [0, 1], and JSON-able facts that explain it."""

    reward: float
    detail: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """No reward, and why."""

    message: str
    code: ItemErrorCode = "scorer_failed"


Outcome = Scored | Failed
