"""Promise: whatever people, requesters and the clock do, and in whatever order, every label counts
once or is said not to, rewards are the mean of what counted, and what is over never changes.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from reward_server.domain.jobs import Blob, NewItem, NewJob, Rules
from reward_server.store import Store, claims, jobs, labels, leases
from reward_server.store.changes import Change, ChangeRefused, change
from reward_server.store.tables import assignment
from shared.schema import TERMINAL, Label
from shared.schema.labels import LeaseRef, SubmitRow

IMAGE = Blob("a" * 64, "image/png", 1, 8, 8)
SETTLE_S = 5.0
people = st.sampled_from(["anna", "ben", "cleo"])
any_label = st.sampled_from(["like", "dislike", "skip", "flag"])
positions = st.integers(0, 10**6)
numbers = count()


class Queue(RuleBasedStateMachine):
    """One job at a time is enough: the jobs of one machine share people, clock and sweeps."""

    counted_ever = 0

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.now = 1000.0
        self.mark = next(numbers)
        self.jobs: list[str] = []
        self.leases: list[tuple[str, int, SubmitRow]] = []
        self.counted: dict[str, tuple[str, int, Label]] = {}
        self.revs: dict[str, int] = {}
        self.over: dict[str, list[Any]] = {}

    @initialize()
    def begin(self) -> None:
        # Not every draw of rules claims and submits; what follows always meets a label.
        self.ask(2, 2, None)
        self.claim("anna", 1)
        self.submit(0, "like", 1)

    @rule(n=st.integers(1, 3), votes=st.integers(1, 3), deadline=st.sampled_from([None, 20.0]))
    def ask(self, n: int, votes: int, deadline: float | None) -> None:
        name = f"job{self.mark}-{len(self.jobs)}"
        items = [NewItem(f"{name} {i}", image=IMAGE) for i in range(n)]
        rules = Rules(votes, 1, None, votes)
        new = NewJob(
            name, "human", "human", "m", items, name, None, 0, deadline_s=deadline, rules=rules
        )
        self.store.write(jobs.accept, new, self.now, 10**6)
        self.jobs.append(name)

    @rule(who=people, n=st.integers(1, 4))
    def claim(self, who: str, n: int) -> None:
        worker = f"{who}{self.mark}"
        for one in self.store.write(claims.claim, worker, n, self.now, 30.0):
            self._hold(worker, one.assignment, one.token)

    def _hold(self, worker: str, key: int, token: str) -> None:
        """Remember a lease, with the click that would end it."""
        row = SubmitRow(
            assignment=str(key), token=token, label="like", client_label_id=f"click {key}"
        )
        self.leases.append((worker, key, row))

    @rule(which=positions, label=any_label, times=st.integers(1, 2))
    def submit(self, which: int, label: Label, times: int) -> None:
        if not self.leases:
            return
        worker, key, row = self.leases[which % len(self.leases)]
        row = row.model_copy(update={"label": label})
        (result,), _ = self.store.write(labels.submit, worker, [row], self.now, SETTLE_S)
        if result.outcome == "counted":
            assert row.client_label_id not in self.counted
            self.counted[row.client_label_id] = (worker, key, label)
            type(self).counted_ever += 1
        for _ in range(times):
            (again,), _ = self.store.write(labels.submit, worker, [row], self.now, SETTLE_S)
            assert again.outcome != "counted"

    @rule(who=people)
    def undo(self, who: str) -> None:
        try:
            key, _, lease, _ = self.store.write(
                labels.undo, f"{who}{self.mark}", None, self.now, 30.0, SETTLE_S
            )
        except labels.UndoRefused:
            return
        worker, _, _ = self.counted.pop(key)
        if lease is not None:
            self._hold(worker, lease.assignment, lease.token)

    @rule(which=positions)
    def release(self, which: int) -> None:
        if self.leases:
            worker, key, row = self.leases[which % len(self.leases)]
            ref = LeaseRef(assignment=str(key), token=row.token)
            self.store.write(claims.release, worker, [ref])

    @rule(seconds=st.sampled_from([1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.store.write(leases.sweep, self.now, SETTLE_S)

    @rule(which=positions, votes=st.integers(1, 3))
    def change_votes(self, which: int, votes: int) -> None:
        job = self.jobs[which % len(self.jobs)]
        try:
            self.store.write(change, job, Change(votes=votes), self.now, SETTLE_S)
        except ChangeRefused:
            assert job in self.over

    @rule(which=positions)
    def cancel(self, which: int) -> None:
        job = self.jobs[which % len(self.jobs)]
        assert self.store.write(jobs.cancel, job, self.now) == (job not in self.over)

    @invariant()
    def every_label_counts_once_and_what_is_over_stays(self) -> None:
        mine = select(assignment.c.id, assignment.c.item_id)
        item_of = dict(self.store.read(lambda c: c.execute(mine).all()))
        given: defaultdict[int, list[Label]] = defaultdict(list)
        for _, key, label in self.counted.values():
            given[item_of[key]].append(label)
        for record in self.store.read(jobs.load, self.jobs):
            job, seen = record.job, []
            for one in record.items:
                votes = given[one.id]
                assert (one.likes, one.dislikes) == (votes.count("like"), votes.count("dislike"))
                assert one.skips == len(votes) - one.likes - one.dislikes
                if one.status == "ok":
                    assert one.value == one.likes / (one.likes + one.dislikes)
                seen.append((one.status, one.value, one.likes, one.dislikes))
            assert job.rev >= self.revs.get(job.id, 0)
            self.revs[job.id] = job.rev
            if job.status in TERMINAL:
                assert self.over.setdefault(job.id, [job.status, seen]) == [job.status, seen]

    def teardown(self) -> None:
        """Leave nothing to claim for the next machine."""
        for job in self.jobs:
            self.store.write(jobs.cancel, job, self.now)


def test_labels_count_once_in_any_order(store: Store) -> None:
    before = Queue.counted_ever
    run_state_machine_as_test(
        lambda: Queue(store), settings=settings(max_examples=30, stateful_step_count=30)
    )
    assert Queue.counted_ever > before
