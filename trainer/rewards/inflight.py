"""Groups that wait for their scores, driven by background threads over HTTP.

Groups are submitted as soon as they are rolled out and handed back when scored, oldest first; a
group whose score is slow (a person) is overtaken, never forgotten. A missing reward is NaN. What
the server forgot is submitted again under its idempotency key. An error of a thread
is raised where groups are collected, and so is a machine reward that scores nothing at all.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shared.client import build_request
from shared.errors import JobNotFound
from shared.schema import Job, ScoreRequest, WaitResult
from shared.schema.ops import Info
from trainer.arithmetic.shapes import Images
from trainer.errors import ConfigError, UnscoredError
from trainer.rewards.groups import Group, Prompt, ScoredGroup

Pixels = NDArray[np.uint8]
SUBMITTERS = 16  # requests held open at once: they wait for scores, they do not compute
MACHINE_WAIT_S = 20.0  # a machine reward usually answers in the request that submits it
POLL_S = 5.0
PATIENCE_S = 5.0  # for groups that younger ones would overtake
MAX_IDS = 1000  # per wait-for-many request
UNSCORED = 64  # groups in a row without one score: no bad luck any more


class RewardSource(Protocol):
    """The calls of `shared.client.RewardClient` that training needs."""

    def submit(
        self, request: ScoreRequest, *, idempotency_key: str | None = None, wait: float = 0.0
    ) -> Job: ...

    def wait_many(self, ids: Sequence[str], *, wait: float = POLL_S) -> WaitResult: ...

    def ack(self, job_id: str) -> Job: ...

    def info(self) -> Info: ...


def to_pixels(images: Images) -> list[Pixels]:
    """RGB images in [0, 1] as (height, width, 3) uint8 arrays, rounded as the pipelines do."""
    array = (images.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [np.ascontiguousarray(a) for a in array]


@dataclass(frozen=True)
class RewardTraits:
    """What /info says about a reward."""

    human: bool
    takes_target: bool


def known_rewards(source: RewardSource, wanted: Sequence[str]) -> dict[str, RewardTraits]:
    """Traits of the wanted rewards; the client's own errors if the server is away or says no.

    Raises ConfigError for a reward the server does not have.
    """
    known = {
        r.name: RewardTraits(r.kind == "human", r.target is not None) for r in source.info().rewards
    }
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"reward = {name!r} is not known to the reward server; it has: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
    return {name: known[name] for name in wanted}


def _digest(entry: Waiting) -> str:
    """Which images a group has: a run that was killed and resumed may roll it out differently."""
    made = hashlib.sha256(str(entry.group.version).encode())
    for pixels in entry.pixels:
        made.update(pixels.tobytes())
    return made.hexdigest()[:16]


def request_fields(prompt: Prompt, traits: RewardTraits) -> dict[str, Any]:
    """A prompt's options: fields of the request for a human reward, `options` for a machine's."""
    options = dict(prompt.options)
    return options if traits.human else {"options": options or None}


@dataclass
class Waiting:
    """A group on its way: its images, its job once accepted, its rewards once scored."""

    group: Group
    pixels: list[Pixels]
    job_id: str | None = None
    rewards: list[float | None] | None = None
    overtaken: bool = False

    def scored(self) -> ScoredGroup:
        """Rewards as a tensor, NaN where missing; only once they have come."""
        return ScoredGroup.of(self.group, self.rewards or [])


def _why_unscored(job: Job) -> str | None:
    """Why a job that has ended has not one reward; None if it has, or if time ran out."""
    errors = [item.error for item in job.data if item.error is not None]
    scorers = [e for e in errors if e.code not in ("deadline", "cancelled")]
    return f"{scorers[0].code}: {scorers[0].message}" if scorers and job.counts.ok == 0 else None


@dataclass
class _Shared:
    """State common to the threads, under one condition."""

    waiting: dict[int, Waiting] = field(default_factory=dict)
    unscored: dict[str, int] = field(default_factory=dict)
    error: BaseException | None = None
    closing: bool = False


class InFlight:
    """All groups between rollout and update. Use as a context manager."""

    def __init__(
        self,
        source: RewardSource,
        run_id: str,
        rewards: dict[str, RewardTraits],
        patience_s: float = PATIENCE_S,
        unscored: int = UNSCORED,
    ) -> None:
        self._source = source
        self._run_id = run_id
        self._rewards = rewards
        self._patience_s = patience_s
        self._unscored = unscored
        self._state = _Shared()
        self._changed = threading.Condition()
        self._submitters = ThreadPoolExecutor(SUBMITTERS, "submit")
        self._poller = threading.Thread(
            target=self._guarded, args=(self._poll,), name="poll", daemon=True
        )
        self._poller.start()

    def add(self, group: Group, pixels: list[Pixels], job_id: str | None = None) -> None:
        """Sends a group to be scored; with `job_id` it was accepted before (a resumed run)."""
        entry = Waiting(group, pixels, job_id)
        with self._changed:
            self._state.waiting[group.index] = entry
            self._changed.notify_all()
        if job_id is None:
            self._submit_soon(entry)

    def add_scored(self, scored: ScoredGroup) -> None:
        """Takes back a group that was scored but not used (a resumed run)."""
        with self._changed:
            self._state.waiting[scored.group.index] = Waiting(scored.group, [], "", scored.given)

    @property
    def count(self) -> int:
        """Groups not yet taken, scored or not."""
        with self._changed:
            return len(self._state.waiting)

    def collect(self, wanted: int, timeout_s: float) -> list[ScoredGroup]:
        """`wanted` scored groups, oldest first, or none if so many are not there in time.

        Once enough are scored, older ones get `patience_s` to catch up, once, unless a person is to
        score them: with a prompt server the order is that of submission, and nobody waits twice for
        the same slow group.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failed or len(self._ready()) >= wanted, timeout_s)
            self._raise_failure()
            if len(self._ready()) < wanted:
                return []
            self._changed.wait_for(lambda: self._failed or self._in_order(wanted), self._patience_s)
            self._raise_failure()
            taken = self._ready()[:wanted]
            for entry in self._state.waiting.values():
                entry.overtaken |= entry.group.index < taken[-1].group.index
            for entry in taken:
                del self._state.waiting[entry.group.index]
        self._acknowledge(taken)
        return [entry.scored() for entry in taken]

    @property
    def waiting_for_people(self) -> int:
        """Groups that a person has yet to look at, at least in part."""
        with self._changed:
            open_ = [e for e in self._state.waiting.values() if e.rewards is None]
            return sum(self._rewards[e.group.prompt.reward].human for e in open_)

    @property
    def human_rewards(self) -> frozenset[str]:
        """Names of the run's rewards that people give."""
        return frozenset(name for name, traits in self._rewards.items() if traits.human)

    def snapshot(self) -> list[Waiting]:
        """Everything in the window, for a checkpoint, oldest first."""
        with self._changed:
            return [self._state.waiting[index] for index in sorted(self._state.waiting)]

    def close(self) -> None:
        """Stops the threads; jobs at the server go on and can be taken up again."""
        with self._changed:
            self._state.closing = True
            self._changed.notify_all()
        self._submitters.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> InFlight:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> list[Waiting]:
        waiting = self._state.waiting
        return [waiting[i] for i in sorted(waiting) if waiting[i].rewards is not None]

    @property
    def _failed(self) -> bool:
        return self._state.error is not None

    def _in_order(self, wanted: int) -> bool:
        """Whether the next `wanted` groups are the oldest of those worth waiting for."""
        last = self._ready()[wanted - 1].group.index
        older = (e for i, e in self._state.waiting.items() if i < last and e.rewards is None)
        return all(e.overtaken or self._rewards[e.group.prompt.reward].human for e in older)

    def _acknowledge(self, taken: list[Waiting]) -> None:
        """Tells the server that people's votes were used and cannot be undone any more."""
        for entry in taken:
            if entry.job_id and self._rewards[entry.group.prompt.reward].human:
                self._submitters.submit(self._guarded, self._source.ack, entry.job_id)

    def _raise_failure(self) -> None:
        if self._state.error is not None:
            raise self._state.error

    def _guarded(self, work: Callable[..., object], *args: object) -> None:
        """Runs work in a thread; a failure is kept for who collects."""
        try:
            work(*args)
        except BaseException as error:  # raised again where the caller collects
            with self._changed:
                if not self._state.closing:
                    self._state.error = self._state.error or error
                self._changed.notify_all()

    def _submit_soon(self, entry: Waiting) -> None:
        self._submitters.submit(self._guarded, self._submit, entry)

    def _submit(self, entry: Waiting) -> None:
        prompt = entry.group.prompt
        traits, count = self._rewards[prompt.reward], len(entry.pixels)
        target = None if prompt.target is None else dict(prompt.target)
        name = f"{self._run_id}/{entry.group.index}"
        request = build_request(
            prompt.reward,
            [prompt.text] * count,
            entry.pixels,
            targets=[target] * count if traits.takes_target else None,
            run_id=self._run_id,
            group_id=name,
            step=entry.group.version,
            **request_fields(prompt, traits),
        )
        wait = 0.0 if traits.human else MACHINE_WAIT_S
        key = f"{name}/{_digest(entry)}"
        self._record(entry, self._source.submit(request, idempotency_key=key, wait=wait))

    def _record(self, entry: Waiting, job: Job) -> None:
        with self._changed:
            entry.job_id = job.id
            if job.terminal:
                entry.rewards = list(job.rewards)
                self._watch(entry.group.prompt.reward, job)
            self._changed.notify_all()

    def _watch(self, reward: str, job: Job) -> None:
        """Counts a machine reward's groups in a row without a score; too many are a failure."""
        why = None if self._rewards[reward].human else _why_unscored(job)
        self._state.unscored[reward] = 0 if why is None else self._state.unscored.get(reward, 0) + 1
        if self._state.unscored[reward] >= self._unscored:
            self._state.error = self._state.error or UnscoredError(
                f"the reward server scored not one picture of the last {self._unscored} groups for "
                f"{reward!r}; it says: {why}. The run is saved: mend that, then --resume"
            )

    def _poll(self) -> None:
        """Asks for all accepted and unscored jobs in one request, again and again."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state.closing or bool(self._open()))
                if self._state.closing:
                    return
                entries = {e.job_id: e for e in self._open()[:MAX_IDS] if e.job_id}
            try:
                result = self._source.wait_many(list(entries), wait=POLL_S)
            except JobNotFound:
                result = WaitResult(jobs=[], pending=[], unknown=list(entries))
            for job in result.jobs:
                self._record(entries[job.id], job)
            for job_id in result.unknown:
                self._forgotten(entries[job_id])

    def _open(self) -> list[Waiting]:
        return [e for e in self._state.waiting.values() if e.job_id and e.rewards is None]

    def _forgotten(self, entry: Waiting) -> None:
        """The server lost the job (restored from a backup, purged): submit it again."""
        with self._changed:
            entry.job_id = None
        self._submit_soon(entry)
