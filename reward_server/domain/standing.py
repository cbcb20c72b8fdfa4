"""How an annotator does on golds, the pictures whose answer is known, and what follows from it.

Pure: no database, no clock, no configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import random

WINDOW: Final = 20
"""Latest gold answers that count: what somebody did long ago says little about today."""

Standing = Literal["ready", "onboarding", "retry", "requester"]


@dataclass(frozen=True)
class Checks:
    """How people are checked.

    ``share`` of what they see are golds; the first ``onboarding`` pictures are nothing else; below
    ``limit`` of right answers, out of at least ``least``, they are asked to pause.
    """

    share: float = 0.1
    onboarding: int = 5
    limit: float = 0.7
    least: int = 5


@dataclass(frozen=True)
class GoldRecord:
    """Right answers among those in the window, golds on screen, and golds not seen yet."""

    right: int
    answered: int
    held: int
    unseen: int


def standing(checks: Checks, record: GoldRecord) -> Standing:
    """What an annotator may do now.

    ``ready``: judge; ``onboarding``: golds only; ``retry``: pause, then show on fresh golds that it
    goes better; ``requester``: pause until the requester says so, because no golds are left.

    Without golds nobody is held up: who has seen them all is as good as their last answers.
    """
    least = max(checks.least, checks.onboarding)
    if record.answered >= least and record.right < checks.limit * record.answered:
        return "retry" if record.unseen >= least else "requester"
    if record.answered < checks.onboarding and record.held + record.unseen > 0:
        return "onboarding"
    return "ready"


def newcomers_golds(checks: Checks, record: GoldRecord) -> int:
    """Golds somebody in onboarding gets now, beyond those on screen."""
    return min(max(checks.onboarding - record.answered - record.held, 0), record.unseen)


def golds_among(n: int, share: float, luck: random.Random) -> int:
    """How many of ``n`` pictures are golds: each one by chance, so that none can be foretold."""
    return sum(luck.random() < share for _ in range(n))
