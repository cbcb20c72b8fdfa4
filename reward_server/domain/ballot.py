"""Counting a batch of labels against the leases and items they are about.

Pure: the store reads what a batch touches once, this decides row by row, the store writes once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from reward_server.domain.jobs import (
    LIVE,
    Decision,
    ItemKind,
    LeaseState,
    Rules,
    Tally,
    accepts_label,
    decide_item,
    votes_needed,
)
from shared.schema import ItemStatus, Label
from shared.schema.labels import SubmitResult, SubmitRow

Outcome = Literal["counted", "replayed", "extra", "refused"]


@dataclass
class Lease:
    """What is known of one assignment; ``label`` stays when it is undone."""

    id: int
    item: int
    worker: str
    token: str
    state: LeaseState
    label: Label | None
    client_label_id: str | None
    undone: bool


@dataclass
class Voted:
    """One item people vote on, as it stands after the labels so far."""

    id: int
    job: str
    kind: ItemKind
    status: ItemStatus
    need: int
    leased: int
    tally: Tally
    rules: Rules
    end: Decision | None = None

    @property
    def free(self) -> int:
        """Slots nobody holds."""
        return self.need - self.tally.likes - self.tally.dislikes - self.leased

    @property
    def pending(self) -> bool:
        """Whether a vote changes anything; a gold's answer is known, its voters are checked."""
        return self.status == "pending" or self.kind == "gold"

    def count(self, label: Label, *, held: bool) -> None:
        """One more label, from a lease that still held its slot or from a late one."""
        self.tally = self.tally.add(label)
        self.need = max(self.need, votes_needed(self.rules, self.tally))
        self.leased -= held
        if self.kind != "gold":
            self.end = decide_item(self.rules, self.tally)
        if self.end is not None:
            self.status, self.leased = self.end.status, 0


class Ballot:
    """The labels of one annotator's request.

    ``leases`` are the assignments the labels name, those that carry one of their client ids, and
    the annotator's live ones on the same ``items``. Afterwards ``labelled`` are the assignments
    that got a label with the row that brought it, ``counted`` the items whose votes changed.
    """

    def __init__(self, worker: str, leases: Iterable[Lease], items: Iterable[Voted]) -> None:
        self._worker = worker
        self._leases = {str(one.id): one for one in leases}
        self._items = {one.id: one for one in items}
        mine = [one for one in self._leases.values() if one.worker == worker]
        self._known = {one.client_label_id: one for one in mine if one.client_label_id is not None}
        self.labelled: list[tuple[Lease, SubmitRow]] = []
        self.counted: dict[int, Voted] = {}

    def cast(self, row: SubmitRow) -> SubmitResult:
        """Count one label, or say why not."""
        before = self._known.get(row.client_label_id)
        if before is not None:
            return _repeated(row, before)
        lease = self._leases.get(row.assignment)
        if lease is None or lease.worker != self._worker or not _fits(lease, row):
            return _result(row, "refused", "this is no lease of yours; claim again")
        if lease.label is not None:
            return _result(row, "refused", f"labelled already: {lease.label!r}")
        voted = self._items[lease.item]
        held = lease.state == "leased"
        counts = accepts_label(
            lease.state,
            row.label,
            pending=voted.pending,
            free=voted.free,
            rival=not held and self._holds(voted.id),
        )
        if counts:
            voted.count(row.label, held=held)
            self.counted[voted.id] = voted
        self._label(lease, row, _state(row.label) if counts else "extra")
        if not counts:
            return _result(row, "extra", "kept but not counted: the slot was gone")
        return _result(row, "counted")

    def _holds(self, item: int) -> bool:
        """Whether the annotator has the item anew."""
        mine = (one for one in self._leases.values() if one.worker == self._worker)
        return any(one.item == item and one.state in LIVE for one in mine)

    def _label(self, lease: Lease, row: SubmitRow, state: LeaseState) -> None:
        lease.state, lease.label, lease.client_label_id = state, row.label, row.client_label_id
        self._known[row.client_label_id] = lease
        self.labelled.append((lease, row))


def _fits(lease: Lease, row: SubmitRow) -> bool:
    # As bytes: anything may be sent, and only ASCII texts can be compared as they are.
    return secrets.compare_digest(lease.token.encode(), row.token.encode())


def _state(label: Label) -> LeaseState:
    return "done" if label in ("like", "dislike") else "skipped"


def _repeated(row: SubmitRow, before: Lease) -> SubmitResult:
    if str(before.id) != row.assignment or before.label != row.label:
        return _result(row, "refused", "this client_label_id belongs to another label")
    if before.state == "extra":
        return _result(row, "extra", "kept but not counted: the slot was gone")
    return _result(row, "replayed", "undone since" if before.undone else None)


def _result(row: SubmitRow, outcome: Outcome, message: str | None = None) -> SubmitResult:
    return SubmitResult(
        assignment=row.assignment,
        client_label_id=row.client_label_id,
        status=200 if outcome in ("counted", "replayed") else 409,
        outcome=outcome,
        message=message,
    )
