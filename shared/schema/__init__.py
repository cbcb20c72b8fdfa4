"""Wire types of the reward server's HTTP API: the one place where its words are defined.

Strict both ways: unknown fields are refused, nothing is coerced, NaN is no number, and a reward
that could not be measured is ``null``. This module does no I/O and decides nothing. Its siblings
``schema_labels`` and ``schema_ops`` hold the words of the labeling and operations routes.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

API_VERSION: Final = "1"
DEFAULT_URL: Final = "http://127.0.0.1:8000"

MAX_ITEMS: Final = 256
"""Most images in one score request."""
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Largest request body, counted while it streams in."""
MAX_WAIT_S: Final = 60.0
"""Longest time the server holds one long-poll."""
MAX_WAIT_IDS: Final = 1000
"""Most jobs in one wait-for-many request."""
MAX_ANSWERED_ITEMS: Final = 4096
"""Most items of all jobs in one answer; more only if a single job has them."""
MAX_CLAIM: Final = 32
"""Most items leased to one annotator by one claim."""

JobStatus = Literal["queued", "running", "partial", "succeeded", "failed", "cancelled"]
ItemStatus = Literal["pending", "ok", "error", "incomplete", "skipped"]
Label = Literal["like", "dislike", "skip", "flag"]
Scope = Literal["score", "label", "admin"]

TERMINAL: Final[frozenset[JobStatus]] = frozenset({"partial", "succeeded", "failed", "cancelled"})
"""Job states that never change again: all scored, some scored, none scored, cancelled."""

ErrorCode = Literal[
    "malformed",
    "unauthorized",
    "forbidden",
    "cross_origin",
    "not_found",
    "unknown_reward",
    "unknown_job",
    "method_not_allowed",
    "conflict",
    "already_used",
    "nothing_to_undo",
    "other_annotator",
    "hash_mismatch",
    "purged",
    "too_large",
    "unsupported_media_type",
    "invalid_request",
    "idempotency_mismatch",
    "scorer_unavailable",
    "queue_full",
    "rate_limited",
    "disk_full",
    "storage_failed",
    "not_ready",
    "internal",
]
ItemErrorCode = Literal[
    "image_undecodable",
    "image_unsupported",
    "image_too_large",
    "image_missing",
    "empty_target",
    "unreadable_target",
    "scorer_failed",
    "scorer_crashed",
    "too_few_votes",
    "deadline",
    "cancelled",
]

NO_NUL: Final = r"^[^\x00]*$"
"""A character no database keeps in text; refused here, so that all servers behave alike."""
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Json = dict[str, JsonValue]


class Wire(BaseModel):
    """Base of every wire type: immutable, strict, closed to unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ImageRef(Wire):
    """One image, named in exactly one way.

    ``b64``: base64 of the PNG, JPEG or WebP file; ``sha256``: an image stored before with
    ``PUT /images/sha256-<hex>``; ``part``: name of a file part of the same multipart request.
    """

    b64: str | None = None
    mime: Literal["image/png", "image/jpeg", "image/webp"] | None = None
    sha256: Sha256 | None = None
    part: Id | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [n for n in ("b64", "sha256", "part") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"an image needs exactly one of b64, sha256, part; got {given}")
        return self


class ScoreItem(Wire):
    """One image to score, with the prompt it was generated from.

    ``target`` says what the reward compares with, e.g. ``{"text": "Hi"}`` for ``ocr``.
    """

    id: Id | None = None
    prompt: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)]
    image: ImageRef
    target: Json | None = None


class ScoreRequest(Wire):
    """A batch of images for ONE reward, usually one group (G images of one prompt).

    ``votes``, ``min_votes``, ``quorum``, ``max_skips`` and ``instruction`` apply to human rewards.
    An item is closed after ``votes`` likes and dislikes; or when one side has ``quorum`` votes; or
    after ``max_skips`` skips (default: ``votes``), scored then if it has ``min_votes`` votes. Where
    less than ``min_agreement`` of the voters' pairs agree, one more is asked, up to ``max_votes``.
    ``deadline_s`` counts from acceptance; at the deadline whatever has ``min_votes`` is scored.
    Higher ``priority`` goes first, then the earlier deadline: what has none waits for all that has.
    ``webhook`` names an endpoint of this server that is told when the job is over.
    """

    reward: Id | None = None
    items: Annotated[list[ScoreItem], Field(min_length=1, max_length=MAX_ITEMS)]
    run_id: Id | None = None
    group_id: Id | None = None
    step: Annotated[int, Field(ge=0, le=2**53)] | None = None
    deadline_s: Annotated[float, Field(gt=0, le=366 * 86400)] | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    options: Json | None = None
    votes: Annotated[int, Field(ge=1, le=100)] = 1
    min_votes: Annotated[int, Field(ge=1, le=100)] = 1
    quorum: Annotated[int, Field(ge=1, le=100)] | None = None
    max_skips: Annotated[int, Field(ge=1, le=100)] | None = None
    max_votes: Annotated[int, Field(ge=1, le=100)] | None = None
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.5
    instruction: Annotated[str, Field(max_length=2000, pattern=NO_NUL)] | None = None
    webhook: Name | None = None

    @model_validator(mode="after")
    def _votes_fit(self) -> Self:
        for name in ("min_votes", "quorum"):
            value = getattr(self, name)
            if value is not None and value > self.votes:
                raise ValueError(f"{name}={value} can never be reached with votes={self.votes}")
        if self.max_votes is not None and self.max_votes < self.votes:
            raise ValueError(f"max_votes={self.max_votes} is less than votes={self.votes}")
        return self


class JobPatch(Wire):
    """What to change of a job that is not over; only the fields that are sent.

    ``deadline_s`` counts from now, null takes the deadline away; ``votes`` is for human rewards.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    deadline_s: Annotated[float, Field(gt=0, le=366 * 86400)] | None = None
    votes: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing to change: send deadline_s, votes or both")
        if self.votes is None and "votes" in self.model_fields_set:
            raise ValueError("votes is a number; leave it out to keep it")
        return self


class ItemError(Wire):
    """Why an item has no reward."""

    code: ItemErrorCode
    message: str


class VoteCounts(Wire):
    """Votes of a human item so far; a flag counts as a skip here and is kept in the export."""

    like: int = 0
    dislike: int = 0
    skip: int = 0


class ItemResult(Wire):
    """State of one item. ``reward`` is a number exactly when ``status`` is ``ok``."""

    index: int
    id: str | None = None
    status: ItemStatus
    reward: float | None = None
    detail: Json | None = None
    votes: VoteCounts | None = None
    error: ItemError | None = None

    @model_validator(mode="after")
    def _reward_iff_ok(self) -> Self:
        if (self.status == "ok") != (self.reward is not None):
            raise ValueError(f"status {self.status!r} with reward {self.reward!r}")
        return self


class Counts(Wire):
    """Items of a job: scored, not answered yet, and answered without a reward."""

    ok: int
    pending: int
    error: int


class Job(Wire):
    """The server's receipt for a score request, and its answer so far.

    ``rewards`` and ``valid`` keep the order and length of the request's items; ``rewards[i]`` is
    null exactly when ``valid[i]`` is false. ``rev`` grows whenever anything below it changes.
    """

    id: str
    reward: str
    status: JobStatus
    rev: int
    run_id: str | None = None
    group_id: str | None = None
    step: int | None = None
    rewards: list[float | None]
    valid: list[bool]
    data: list[ItemResult]
    counts: Counts
    eta_s: float | None = None
    model: str
    label_url: str | None = None
    created_at: float
    finished_at: float | None = None
    acked: bool = False

    @property
    def terminal(self) -> bool:
        """True once no reward of this job can change any more."""
        return self.status in TERMINAL

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if not len(self.rewards) == len(self.valid) == len(self.data):
            raise ValueError("rewards, valid and data differ in length")
        for reward, valid, item in zip(self.rewards, self.valid, self.data, strict=True):
            if (reward is not None) != valid or reward != item.reward:
                raise ValueError(f"item {item.index}: reward {reward!r} with valid={valid}")
        return self


class JobList(Wire):
    """Answer of ``GET /jobs``, newest first; ``next`` is ``after`` for the next page, if any."""

    jobs: list[Job]
    next: str | None = None


class WaitRequest(Wire):
    """Wait for many jobs over one connection.

    A job has *changed* when its ``rev`` differs from ``revs[id]``; without an entry, when it is
    terminal. ``any`` returns at the first change, ``all`` when every job is terminal.
    """

    ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_WAIT_IDS)]
    revs: dict[str, int] = Field(default_factory=dict)
    wait: Annotated[float, Field(ge=0)] = 25.0
    mode: Literal["any", "all"] = "any"


class WaitResult(Wire):
    """The changed jobs, and the ids that have not changed or are not known to this server.

    Changed jobs beyond ``MAX_ANSWERED_ITEMS`` items stay in ``pending``: the next request has them.
    """

    jobs: list[Job]
    pending: list[str]
    unknown: list[str]


class StoredImage(Wire):
    """Receipt of ``PUT /images/sha256-<hex>``; sizes in bytes and pixels."""

    sha256: Sha256
    mime: str
    bytes: int
    width: int
    height: int


class Problem(BaseModel):
    """RFC 9457 problem details. Open to extension members, as the RFC asks of consumers."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    request_id: str
