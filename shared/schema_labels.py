"""Wire types of the labeling routes: what an annotator's browser and the server say to each other.

Nothing here can carry a run, a policy, a reward or another person's vote to an annotator.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.schema import MAX_CLAIM, Id, Label, Wire


class SessionRequest(Wire):
    """Sign in with an invite; on a loopback server without keys a bare ``name`` is enough."""

    invite: Annotated[str, Field(max_length=200)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class ClaimRequest(Wire):
    """Ask for up to ``n`` items; ``resume`` first returns the leases this annotator still holds."""

    n: Annotated[int, Field(ge=1, le=MAX_CLAIM)] = 16
    resume: bool = False


class ClaimedItem(Wire):
    """One image leased to one annotator: nothing here tells run, policy, reward or other votes."""

    assignment: str
    token: str
    prompt: str
    image_url: str
    width: int
    height: int
    instruction: str | None = None
    lease_s: float


class QueueView(Wire):
    """What is left for this annotator.

    ``open``: items that can be claimed now; ``leased_elsewhere``: items others are looking at, the
    next of which returns within ``next_return_s`` if it is not judged.
    """

    open: int
    leased_elsewhere: int
    next_return_s: float | None = None


class ClaimResult(Wire):
    """Leased items (possibly none) and the state of the queue."""

    items: list[ClaimedItem]
    queue: QueueView


class SubmitRow(Wire):
    """One judgement. ``client_label_id`` makes a retry harmless; ``rt_ms`` is the reaction time."""

    assignment: Id
    token: Id
    label: Label
    client_label_id: Id
    rt_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None


class SubmitResult(Wire):
    """Per-row answer: 200 counted (or counted before), 409 not counted.

    ``outcome``: ``counted``, ``replayed`` (this very label is in already), ``extra`` (kept, but the
    slot was gone), ``refused`` (not this annotator's lease, or wrong token).
    """

    assignment: str
    client_label_id: str
    status: Literal[200, 409]
    outcome: Literal["counted", "replayed", "extra", "refused"]
    message: str | None = None


class SubmitResults(Wire):
    """Answers in the order of the submitted rows, and this annotator's labels so far."""

    results: list[SubmitResult]
    labels: int


class UndoRequest(Wire):
    """Retract one label; without ``client_label_id`` the latest one of this annotator."""

    client_label_id: Id | None = None


class UndoResult(Wire):
    """What was retracted; ``item`` is leased again to this annotator if the slot is free."""

    client_label_id: str
    label: Label
    item: ClaimedItem | None


class LeaseRef(Wire):
    """A lease and its fencing token."""

    assignment: Id
    token: Id


class LeaseRequest(Wire):
    """Leases to extend (heartbeat) or to give back (release)."""

    leases: Annotated[list[LeaseRef], Field(max_length=1000)]


class LeaseResult(Wire):
    """Assignments that are (heartbeat) or were (release) live, and those that are not any more."""

    live: list[str]
    lost: list[str]


class Annotator(Wire):
    """Who is signed in, and what they have done."""

    name: str
    labels: int
    labels_today: int
    leased: int
    queue: QueueView


class LabelStats(Wire):
    """Progress of the human queue, for requesters and for the progress bar."""

    waiting: int
    leased: int
    judged: int
    labels: int
    labels_last_hour: int
    annotators_last_hour: int
    oldest_waiting_s: float | None
    open_jobs: int
