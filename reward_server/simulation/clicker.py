"""One simulated annotator at work: claims, looks, clicks and submits as a browser would.

It sees what an annotator sees and judges the picture alone; it retries with the same label ids, so
that a server that comes and goes counts every click once.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import httpx
from pydantic import TypeAdapter

from reward_server.simulation.tastes import Preference
from shared.client import drive
from shared.errors import RewardError
from shared.exchange import Call, Exchange, get, post
from shared.images import ImageError, decode
from shared.schema import MAX_CLAIM, Label, Wire
from shared.schema.labels import (
    Annotator,
    ClaimedItem,
    ClaimRequest,
    ClaimResult,
    LeaseRef,
    LeaseRequest,
    LeaseResult,
    SessionRequest,
    SubmitResults,
    SubmitRow,
)

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""Seconds without any answer after which an annotator goes home."""
IDLE_POLL_S: Final = 0.3
"""Pause between two looks at an empty queue."""
SECONDS_PER_CLAIM: Final = 4.0
"""Work taken on lease at a time: little, so that leases stay short."""

W = TypeVar("W", bound=Wire)
_ROWS: Final = TypeAdapter(list[SubmitRow])


@dataclass
class Clicks:
    """What all annotators did together; also hands out the permission for one more label."""

    limit: int | None
    labels: Counter[str] = field(default_factory=Counter)
    late: int = 0
    noisy: int = 0
    granted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def grant(self, wanted: int) -> int:
        """Permission for up to `wanted` more labels; 0 once the limit is reached."""
        with self._lock:
            allowed = wanted if self.limit is None else min(wanted, self.limit - self.granted)
            self.granted += allowed
            return allowed

    def give_back(self, unused: int) -> None:
        """Return permissions for labels that did not come about."""
        with self._lock:
            self.granted -= unused

    def record(self, label: Label, *, counted: bool, noisy: bool) -> None:
        with self._lock:
            if counted:
                self.labels[label] += 1
                self.noisy += noisy
            else:
                self.late += 1
                self.granted -= 1

    @property
    def counted(self) -> int:
        return self.labels.total()

    @property
    def done(self) -> bool:
        return self.limit is not None and self.counted >= self.limit

    def line(self, elapsed_s: float) -> str:
        judged = self.labels["like"] + self.labels["dislike"]
        share = f"{100 * self.labels['like'] / judged:.0f} % liked" if judged else "none liked yet"
        rate = self.counted / max(elapsed_s, 1e-9)
        late = f", {self.late} came too late" if self.late else ""
        return f"{self.counted} labels, {share}, {rate:.1f} a second{late}"


@dataclass(frozen=True)
class Habits:
    """How one simulated annotator judges. `rate` in clicks per second, 0 for as fast as it goes."""

    preference: Preference
    noise: float
    rate: float
    seed: int

    def judge(self, image: bytes, who: str) -> tuple[Label, bool]:
        """The label for an image file, and whether it was a random click.

        The same person sees the same picture the same way, whatever the order. A picture that
        cannot be decoded is skipped.
        """
        digest = hashlib.sha256(image).hexdigest()
        rng = random.Random(f"{self.seed}/{who}/{digest}")
        if rng.random() < self.noise:
            return rng.choice(("like", "dislike")), True
        try:
            return ("like" if self.preference(decode(image)) else "dislike"), False
        except ImageError:
            return "skip", False


class _Stopped(Exception):
    """Told to stop while waiting for the server."""


class Clicker:
    """One simulated annotator; without `sign_in` it is whoever the API key says it is."""

    def __init__(
        self,
        http: httpx.Client,
        sign_in: SessionRequest | None,
        habits: Habits,
        tally: Clicks,
        stop: threading.Event,
    ) -> None:
        self._http = http
        self._exchange = Exchange(str(http.base_url), PATIENCE_S, time.monotonic, random.uniform)
        self._sign_in = sign_in
        self._habits = habits
        self._tally = tally
        self._stop = stop
        self._name = ""

    def run(self) -> None:
        """Label until told to stop, the limit is reached, or the server is gone for good.

        Raises:
            RewardError: the server refused, or did not answer for `PATIENCE_S`.
        """
        with suppress(_Stopped):
            self._name = self._enter().name
            while not self._stop.is_set() and not self._tally.done:
                allowed = self._tally.grant(self._batch_size())
                items = self._claim(allowed) if allowed else []
                self._tally.give_back(allowed - len(items))
                if items:
                    self._work_through(items)
                else:
                    self._stop.wait(IDLE_POLL_S)

    def _batch_size(self) -> int:
        if self._habits.rate == 0:
            return MAX_CLAIM
        return max(1, min(MAX_CLAIM, round(self._habits.rate * SECONDS_PER_CLAIM)))

    def _enter(self) -> Annotator:
        if self._sign_in is not None:
            return self._ask(post("/label/session", self._sign_in), Annotator)
        return self._ask(get("/label/me"), Annotator)

    def _claim(self, n: int) -> list[ClaimedItem]:
        return self._ask(post("/label/claim", ClaimRequest(n=n)), ClaimResult).items

    def _work_through(self, items: list[ClaimedItem]) -> None:
        """Judge items one by one; whatever a stop leaves over is given back."""
        pending: list[tuple[SubmitRow, bool]] = []
        for at, item in enumerate(items):
            started = time.monotonic()
            if self._stop.is_set():
                self._submit(pending)
                self._leave(items[at:])
                return
            label, noisy = self._habits.judge(self._image(item), self._name)
            self._keep_pace(started)
            pending.append((self._row(item, label, started), noisy))
            if self._habits.rate > 0:
                self._submit(pending)
                pending = []
        self._submit(pending)

    def _keep_pace(self, started: float) -> None:
        if self._habits.rate > 0:
            self._stop.wait(max(0.0, started + 1 / self._habits.rate - time.monotonic()))

    def _row(self, item: ClaimedItem, label: Label, started: float) -> SubmitRow:
        return SubmitRow(
            assignment=item.assignment,
            token=item.token,
            label=label,
            client_label_id=uuid.uuid4().hex,
            rt_ms=round(1000 * (time.monotonic() - started)),
        )

    def _submit(self, pending: list[tuple[SubmitRow, bool]]) -> None:
        if not pending:
            return
        body = _ROWS.dump_json([row for row, _ in pending])
        answer = self._ask(replace(post("/label/submit"), body=body), SubmitResults)
        for (row, noisy), result in zip(pending, answer.results, strict=True):
            self._tally.record(row.label, counted=result.status == 200, noisy=noisy)

    def _image(self, item: ClaimedItem) -> bytes:
        steps = self._exchange.raw(get(item.image_url))
        return drive(steps, self._http, self._pause).content

    def _leave(self, items: list[ClaimedItem]) -> None:
        leases = [LeaseRef(assignment=i.assignment, token=i.token) for i in items]
        self._tally.give_back(len(leases))
        try:
            self._ask(post("/label/release", LeaseRequest(leases=leases)), LeaseResult)
        except (RewardError, _Stopped) as error:
            logger.info("leases not given back, they run out by themselves: %s", error)

    def _ask(self, call: Call, kind: type[W]) -> W:
        return drive(self._exchange.ask(call, kind), self._http, self._pause)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _Stopped
