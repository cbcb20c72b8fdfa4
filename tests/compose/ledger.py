"""A client's own book of what the server accepted, and what became of it.

Requests go out all the time, whatever is killed meanwhile; what was accepted is written down and
asked for at the end. Every item must have come back once, with the reward its picture deserves.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field

from shared.client import RewardClient, build_request
from shared.schema import Job
from tests.compose.stack import PATIENCE_S, URL, StackError
from tests.support.server_setup import sign

RUN_ID = "compose-check"
WORD, OTHER = "KBQ", "KBX"
TARGETS = [{"text": WORD}, {"text": OTHER}, {"text": WORD}, {"text": OTHER}]
EXPECTED = [1.0, 1.0 - 1 / 3, 1.0, 1.0 - 1 / 3]
ROUNDED = [round(reward, 6) for reward in EXPECTED]
AT_ONCE = 200
"""Jobs asked for in one request."""
PAUSE_S = 0.5


@dataclass(frozen=True)
class Entry:
    """One accepted request."""

    job: str
    phase: str
    items: int


@dataclass
class Ledger:
    """Sends small OCR requests from a thread of its own until stopped."""

    key: str
    entries: list[Entry] = field(default_factory=list)
    phase: str = "start"
    error: Exception | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _answered: set[str] = field(default_factory=set)
    _may_send: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.client = RewardClient(URL, api_key=self.key, budget_s=PATIENCE_S)
        self._images = [sign(WORD)] * len(TARGETS)
        self._thread = threading.Thread(target=self._send, name="ledger", daemon=True)
        self._thread.start()

    def _send(self) -> None:
        try:
            while not self._stop.wait(PAUSE_S):
                with self._may_send:
                    self._send_one()
        except Exception as error:  # told by whoever looks at the ledger next
            self.error = error

    def _send_one(self) -> None:
        phase, prompts = self.phase, ["a sign"] * len(TARGETS)
        request = build_request("ocr", prompts, self._images, targets=TARGETS, run_id=RUN_ID)
        job = self.client.submit(request, idempotency_key=uuid.uuid4().hex)
        self.entries.append(Entry(job.id, phase, len(TARGETS)))

    def pause(self) -> None:
        """Send nothing until `go_on`; returns when nothing is on its way and all is answered."""
        self._may_send.acquire()
        self.settle()

    def go_on(self, phase: str) -> None:
        """Send again, in a new phase."""
        self.phase = phase
        self._may_send.release()

    def accepted(self, phase: str) -> int:
        """Requests accepted during a phase."""
        if self.error is not None:
            raise StackError(f"the client gave up: {self.error}")
        return sum(entry.phase == phase for entry in self.entries)

    def stop(self) -> None:
        """Send no more; what is on its way still counts."""
        self._stop.set()
        self._thread.join(PATIENCE_S)
        if self.error is not None:
            raise StackError(f"the client gave up: {self.error}")

    def settle(self, *, again: bool = False) -> None:
        """Wait until every accepted request is answered; raises unless all are, and rightly.

        With `again` also those are asked for once more that were answered before.
        """
        if again:
            self._answered.clear()
        end = time.monotonic() + PATIENCE_S
        while open_ := [e.job for e in self.entries if e.job not in self._answered][:AT_ONCE]:
            for job in self.client.wait_many(open_, wait=5, mode="all").jobs:
                if job.terminal:
                    self._take(job)
            if time.monotonic() > end:
                raise StackError(f"{len(open_)} jobs without an answer, e.g. {open_[0]}")

    def _take(self, job: Job) -> None:
        if [None if r is None else round(r, 6) for r in job.rewards] != ROUNDED:
            raise StackError(f"job {job.id}: rewards {job.rewards}, not {ROUNDED}")
        self._answered.add(job.id)

    def table(self) -> list[str]:
        """The account by phase: requests and items accepted, items seen answered as they should."""
        lines = [f"{'phase':<24}{'requests':>9}{'items':>7}{'answered':>10}"]
        phases = dict.fromkeys(entry.phase for entry in self.entries)
        for phase in [*phases, "in all"]:
            own = [e for e in self.entries if phase in (e.phase, "in all")]
            answered = sum(e.items for e in own if e.job in self._answered)
            lines.append(f"{phase:<24}{len(own):>9}{sum(e.items for e in own):>7}{answered:>10}")
        return lines

    def compare(self) -> str:
        """Raises unless the server's book says the same."""
        stats = self.client.run_stats(RUN_ID)
        mine = (len(self.entries), sum(e.items for e in self.entries))
        if (stats.requests, stats.items) != mine or stats.by_status != {"ok": mine[1]}:
            raise StackError(f"the server counted {stats}, the client {mine}")
        return f"server: {stats.requests} requests, {stats.items} items, {stats.by_status}"
