"""Wire types of the labeling routes: what an annotator's browser and the server say to each other.

Nothing here can carry a run, a policy, a reward or another person's vote to an annotator.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shared.schema import MAX_CLAIM, MAX_ITEMS, NO_NUL, Id, ImageRef, Label, Wire

Layout = Literal["single", "grid"]
Role = Literal["annotator", "requester"]
FlagReason = Literal["broken_image", "unsafe", "cannot_judge"]

TOO_FAST_MS: Final = 150
"""Nobody sees and judges a picture in less; such labels count, and are marked in the export."""


class SessionRequest(Wire):
    """Sign in with an invite; on a loopback server without keys a bare ``name`` is enough."""

    invite: Annotated[str, Field(max_length=200)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class ClaimRequest(Wire):
    """Ask for up to ``n`` items; ``resume`` first returns the leases this annotator still holds.

    ``page`` names who asks, for ``LeaveRequest``; ``together`` asks for images of one prompt.
    """

    n: Annotated[int, Field(ge=1, le=MAX_CLAIM)] = 16
    resume: bool = False
    page: Id | None = None
    together: bool = False


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
    next of which returns within ``next_return_s`` if it is not judged; ``for_others``: items this
    annotator has judged that wait for the votes of others. ``pause``: no item is given out, until
    the annotator has taken a break (``retry``) or the requester says so (``requester``).
    """

    open: int
    leased_elsewhere: int
    next_return_s: float | None = None
    for_others: int = 0
    pause: Literal["retry", "requester"] | None = None


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
    reason: FlagReason | None = None

    @model_validator(mode="after")
    def _reasons_are_for_flags(self) -> Self:
        if self.reason is not None and self.label != "flag":
            raise ValueError(f"reason={self.reason!r} goes with label 'flag', not {self.label!r}")
        return self


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
    """Retract one label; without ``client_label_id`` the latest one of this annotator.

    ``page`` is who gets its item again.
    """

    client_label_id: Id | None = None
    page: Id | None = None


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


class LeaveRequest(Wire):
    """A page has ended: what it holds goes to others, except what is in ``keep`` (assignments whose
    label is on its way), and it gets nothing any more.

    ``annotator`` is whose page it was, by default the caller's: somebody else may have signed in
    since in the same browser, and only that browser knows the page's name.
    """

    page: Id
    annotator: Id | None = None
    keep: Annotated[list[Id], Field(max_length=10_000)] = Field(default_factory=list)


class LeaveResult(Wire):
    """How many leases were given back."""

    released: int


class LeaseResult(Wire):
    """Assignments that are (heartbeat) or were (release) live, and those that are not any more."""

    live: list[str]
    lost: list[str]


class Annotator(Wire):
    """Who is signed in, what they have done, and how pictures are shown unless they choose."""

    name: str
    role: Role = "annotator"
    layout: Layout = "single"
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


class NewGold(Wire):
    """A picture whose answer is known, to be mixed in unseen; it never becomes a reward."""

    prompt: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)]
    image: ImageRef
    answer: Literal["like", "dislike"]
    instruction: Annotated[str, Field(max_length=2000, pattern=NO_NUL)] | None = None


class GoldRequest(Wire):
    """Golds to add; one that is known already gets the new answer."""

    golds: Annotated[list[NewGold], Field(min_length=1, max_length=MAX_ITEMS)]


class GoldReceipt(Wire):
    """How many golds were new, and how many there are now."""

    added: int
    total: int


class GoldView(Wire):
    """One gold, with what people answered."""

    id: int
    prompt: str
    sha256: str
    answer: Literal["like", "dislike"]
    instruction: str | None
    likes: int
    dislikes: int
    skips: int


class GoldAccuracy(Wire):
    """How one annotator did on the golds in use, over all time."""

    annotator: str
    right: int
    answered: int
    accuracy: float
    paused: bool


class GoldList(Wire):
    """All golds in use, and how everybody does on them."""

    golds: list[GoldView]
    annotators: list[GoldAccuracy]
