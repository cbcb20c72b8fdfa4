"""The queue's domain: jobs, items, leases and votes, and which changes are legal.

Pure: no database, no clock (``now`` is an argument, in epoch seconds), no configuration. The store
asks these functions what a change means and writes down the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from reward_server.domain.votes import agreement, mean_reward
from shared.schema import TERMINAL, ItemErrorCode, ItemStatus, JobStatus, Json, Label
from shared.schema.campaigns import Weights

MAX_ATTEMPTS: Final = 3
"""Times a machine may claim an item before it is given up; counted at claim."""
NEVER: Final = 1e11
"""Deadline of items that have none: the year 5138, so that deadlines sort without nulls."""
LEASE_MIN_S: Final = 30.0
LEASE_MAX_S: Final = 600.0

Kind = Literal["machine", "human"]
ItemKind = Literal["machine", "human", "gold"]
"""Who answers: a scorer, people, or nobody: a gold's answer is known, and people are checked."""
LeaseState = Literal["leased", "done", "skipped", "expired", "revoked", "extra"]
LIVE: Final[frozenset[LeaseState]] = frozenset({"leased", "done", "skipped"})
"""States in which a person has an item: nobody gets it a second time."""

JOB_MOVES: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    "queued": frozenset({"running", *TERMINAL}),
    "running": TERMINAL,
    "partial": frozenset(),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


class IllegalMove(ValueError):
    """A job was asked to move backwards; a bug, never a user's fault."""


def advance(old: JobStatus, new: JobStatus) -> JobStatus:
    """``new``, if a job may go there from ``old`` (or stays).

    Raises:
        IllegalMove: job states only move forward.
    """
    if new != old and new not in JOB_MOVES[old]:
        raise IllegalMove(f"a job cannot move from {old!r} to {new!r}")
    return new


@dataclass(frozen=True)
class Blob:
    """A stored image file; sizes in bytes and pixels."""

    sha256: str
    mime: str
    bytes: int
    width: int
    height: int


@dataclass(frozen=True)
class NewItem:
    """One image as accepted; with ``error`` it is answered already and needs no ``image``."""

    prompt: str
    id: str | None = None
    image: Blob | None = None
    target: Json | None = None
    error: tuple[ItemErrorCode, str] | None = None


@dataclass(frozen=True)
class Rules:
    """When a human item is closed; see ``ScoreRequest``."""

    votes: int = 1
    min_votes: int = 1
    quorum: int | None = None
    max_skips: int = 1
    max_votes: int | None = None
    min_agreement: float = 0.5


@dataclass(frozen=True)
class NewJob:
    """A checked score request on its way into the store."""

    id: str
    kind: ItemKind
    reward: str
    model: str
    items: list[NewItem]
    fingerprint: str
    idempotency: str | None
    request_bytes: int
    run_id: str | None = None
    group_id: str | None = None
    step: int | None = None
    deadline_s: float | None = None
    delay_s: float = 0.0
    priority: int = 0
    options: Json | None = None
    instruction: str | None = None
    webhook: str | None = None
    rules: Rules = field(default_factory=Rules)
    weights: Weights = "equal"


@dataclass(frozen=True)
class Tally:
    """Votes of one item."""

    likes: int = 0
    dislikes: int = 0
    skips: int = 0

    def add(self, label: Label, weight: int = 1) -> Tally:
        """This tally with one more ``label``, or one less with ``weight=-1``; a flag is a skip."""
        return Tally(
            self.likes + weight * (label == "like"),
            self.dislikes + weight * (label == "dislike"),
            self.skips + weight * (label in ("skip", "flag")),
        )


@dataclass(frozen=True)
class Decision:
    """How an item ends."""

    status: ItemStatus
    reward: float | None = None
    detail: Json | None = None
    error: tuple[ItemErrorCode, str] | None = None


def votes_needed(rules: Rules, tally: Tally) -> int:
    """Likes and dislikes that close an item as it stands: one more while people disagree."""
    votes = tally.likes + tally.dislikes
    if votes < rules.votes:
        return rules.votes
    united = agreement(tally.likes, tally.dislikes)
    settled = united is None or united >= rules.min_agreement
    return votes if settled or votes >= (rules.max_votes or 0) else votes + 1


def decide_item(rules: Rules, tally: Tally, *, deadline_passed: bool = False) -> Decision | None:
    """End of a human item, or None while it must go on waiting for votes."""
    votes = tally.likes + tally.dislikes
    enough = votes >= votes_needed(rules, tally)
    quorum = rules.quorum is not None and max(tally.likes, tally.dislikes) >= rules.quorum
    skipped_out = tally.skips >= rules.max_skips
    if not (enough or quorum or skipped_out or deadline_passed):
        return None
    if votes >= rules.min_votes:
        detail: Json = {"agreement": agreement(tally.likes, tally.dislikes)}
        return Decision("ok", mean_reward(tally.likes, tally.dislikes), detail)
    why = f"{votes} votes and {tally.skips} skips, at least {rules.min_votes} votes are needed"
    return Decision("incomplete", error=("too_few_votes", why))


def decide_job(
    status: JobStatus,
    counts: Mapping[ItemStatus, int],
    *,
    started: bool,
    settles_at: float | None,
    now: float,
) -> JobStatus:
    """State of a job from its items: succeeded if all scored, partial if some, failed if none.

    ``settles_at``: a job answered by people ends only then, so that the last click can be undone.
    """
    if status in TERMINAL:
        return status
    if counts.get("pending", 0) or (settles_at is not None and now < settles_at):
        return advance(status, "running") if started else status
    scored, total = counts.get("ok", 0), sum(counts.values())
    if scored == total:
        return advance(status, "succeeded")
    return advance(status, "partial" if scored else "failed")


def lease_seconds(p95_s: float, n: int) -> float:
    """Length of a lease on ``n`` items that take ``p95_s`` each: 3 x p95 x n in [30 s, 10 min]."""
    return min(max(3.0 * p95_s * n, LEASE_MIN_S), LEASE_MAX_S)


def accepts_label(
    state: LeaseState, label: Label, *, pending: bool, free: int, rival: bool
) -> bool:
    """Whether a label for a lease in ``state`` counts.

    A lease that ran out or was given back still counts while the item is open and its slot free;
    ``free`` are the slots nobody holds, ``rival`` means the same person holds the item anew.
    """
    if not pending:
        return False
    if state == "leased":
        return True
    late = state in ("expired", "revoked") and not rival
    return late and (free > 0 or label in ("skip", "flag"))
