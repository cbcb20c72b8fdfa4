"""Promise: with 8 people at once, K = 3, who abandon and submit late, no item gets a vote too many
or too few, nobody judges one item twice, and the votes recorded are those that were given.
"""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
from sqlalchemy import func, select

from reward_server.domain.jobs import Blob, NewItem, NewJob, Rules
from reward_server.store import Store, claims, jobs, labels, leases
from reward_server.store.claims import HumanLease
from reward_server.store.tables import assignment, item
from shared.schema import Label
from shared.schema.labels import LeaseRef, SubmitRow

PEOPLE, K, ITEMS = 8, 3, 60
IMAGE = Blob("a" * 64, "image/png", 1, 8, 8)


class Time:
    """A clock all threads share; it moves only when somebody moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._lock = threading.Lock()

    def pass_by(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


def ask(store: Store, n: int, rules: Rules, job_id: str = "job") -> None:
    items = [NewItem(prompt=f"picture {i}", image=IMAGE) for i in range(n)]
    new = NewJob(job_id, "human", "human", "m", items, job_id, None, 0, rules=rules)
    store.write(jobs.accept, new, 1000.0, 10**6)


def row(lease: HumanLease, label: Label) -> SubmitRow:
    return SubmitRow(
        assignment=str(lease.assignment),
        token=lease.token,
        label=label,
        client_label_id=f"click-{lease.assignment}",
    )


class Person(threading.Thread):
    """Claims, judges, skips, walks away, comes back late, sends everything twice."""

    def __init__(self, store: Store, name: str, clock: Time) -> None:
        super().__init__(name=name)
        self.store, self.clock = store, clock
        self.luck = random.Random(name)
        self.counted: Counter[str] = Counter()
        self.late: list[SubmitRow] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.failure = error

    def _work(self) -> None:
        idle = 0
        while idle < 40:
            found = self.store.write(claims.claim, self.name, 5, self.clock.now, 30.0)
            idle = 0 if found else idle + 1
            if not found:
                self.clock.pass_by(4.0)
                self.store.write(leases.sweep, self.clock.now, 0.0)
                continue
            self._judge(found)
        self._submit(self.late)

    def _judge(self, found: list[HumanLease]) -> None:
        mood = self.luck.random()
        rows = [row(lease, self.luck.choice(["like", "dislike"])) for lease in found]
        if mood < 0.15:
            self.late += rows
        elif mood < 0.25:
            refs = [LeaseRef(assignment=str(x.assignment), token=x.token) for x in found]
            self.store.write(claims.release, self.name, refs)
        else:
            self._submit(rows)
            self._submit(rows)
        if self.late and self.luck.random() < 0.3:
            self._submit([self.late.pop()])

    def _submit(self, rows: list[SubmitRow]) -> None:
        if not rows:
            return
        results, _ = self.store.write(labels.submit, self.name, rows, self.clock.now, 0.0)
        for given, result in zip(rows, results, strict=True):
            if result.outcome == "counted":
                self.counted[given.label] += 1


def test_eight_people_give_every_item_exactly_its_votes(store: Store) -> None:
    ask(store, ITEMS, Rules(votes=K, max_skips=99))
    clock = Time()
    people = [Person(store, f"person{i}", clock) for i in range(PEOPLE)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert [person.failure for person in people] == [None] * PEOPLE

    record = store.read(jobs.load, ["job"])[0]
    assert record.job.status == "succeeded"
    assert {(r.status, r.done, r.leased) for r in record.items} == {("ok", K, 0)}
    given = sum((person.counted for person in people), Counter())
    assert sum(given.values()) == ITEMS * K
    assert given["like"] == sum(r.likes for r in record.items)
    assert given["dislike"] == sum(r.dislikes for r in record.items)
    voters = select(assignment.c.item_id, func.count(), func.count(assignment.c.worker.distinct()))
    votes = voters.where(assignment.c.state == "done").group_by(assignment.c.item_id)
    assert {(n, people) for _, n, people in store.read(lambda c: c.execute(votes).all())} == {
        (K, K)
    }


def test_a_late_label_counts_if_nobody_took_the_slot(store: Store) -> None:
    ask(store, 1, Rules())
    lease = store.write(claims.claim, "anna", 1, 1000.0, 30.0)[0]
    store.write(leases.sweep, 1031.0, 0.0)
    results, _ = store.write(labels.submit, "anna", [row(lease, "like")], 1032.0, 0.0)
    assert results[0].outcome == "counted"


def test_a_late_label_is_kept_but_not_counted_once_the_slot_is_gone(store: Store) -> None:
    ask(store, 1, Rules())
    slow = store.write(claims.claim, "anna", 1, 1000.0, 30.0)[0]
    store.write(leases.sweep, 1031.0, 0.0)
    quick = store.write(claims.claim, "ben", 1, 1031.0, 30.0)[0]
    late, _ = store.write(labels.submit, "anna", [row(slow, "dislike")], 1032.0, 0.0)
    good, _ = store.write(labels.submit, "ben", [row(quick, "like")], 1033.0, 0.0)
    assert (late[0].outcome, good[0].outcome) == ("extra", "counted")
    record = store.read(jobs.load, ["job"])[0]
    assert (record.items[0].value, record.items[0].dislikes) == (1.0, 0)
    kept = select(assignment.c.label).where(assignment.c.state == "extra")
    assert store.read(lambda c: list(c.execute(kept).scalars())) == ["dislike"]


@pytest.mark.parametrize(
    "change",
    [{"token": "forged"}, {"token": "gefälscht"}, {"assignment": "999"}, {"assignment": "x"}],
)
def test_only_the_live_token_of_ones_own_lease_counts(store: Store, change: dict) -> None:
    ask(store, 1, Rules())
    lease = store.write(claims.claim, "anna", 1, 1000.0, 30.0)[0]
    forged = row(lease, "like").model_copy(update=change)
    results, _ = store.write(labels.submit, "anna", [forged], 1001.0, 0.0)
    stolen, _ = store.write(labels.submit, "ben", [row(lease, "like")], 1001.0, 0.0)
    assert (results[0].outcome, stolen[0].outcome) == ("refused", "refused")
    assert store.read(lambda c: c.execute(select(item.c.likes)).scalar_one()) == 0


def test_a_quorum_ends_an_item_early_and_frees_the_others(store: Store) -> None:
    ask(store, 1, Rules(votes=5, quorum=2, max_skips=9))
    held = [store.write(claims.claim, name, 1, 1000.0, 30.0)[0] for name in ("a", "b", "c")]
    for name, lease in zip(("a", "b"), held, strict=False):
        store.write(labels.submit, name, [row(lease, "like")], 1001.0, 0.0)
    record = store.read(jobs.load, ["job"])[0]
    assert (record.job.status, record.items[0].value, record.items[0].leased) == (
        "succeeded",
        1.0,
        0,
    )
    late, _ = store.write(labels.submit, "c", [row(held[2], "dislike")], 1002.0, 0.0)
    assert late[0].outcome == "extra"


def test_where_people_disagree_one_more_is_asked_up_to_a_limit(store: Store) -> None:
    ask(store, 1, Rules(votes=2, max_skips=9, max_votes=4))
    asked = []
    for name, chosen in zip("abcdef", ["like", "dislike"] * 3, strict=True):
        found = store.write(claims.claim, name, 1, 1000.0, 30.0)
        if not found:
            break
        asked.append(name)
        store.write(labels.submit, name, [row(found[0], chosen)], 1001.0, 0.0)
    assert asked == ["a", "b", "c", "d"]  # 1:1, 2:1 and then the limit
    record = store.read(jobs.load, ["job"])[0]
    assert (record.job.status, record.items[0].value) == ("succeeded", 0.5)


def test_where_people_agree_nobody_else_is_asked(store: Store) -> None:
    ask(store, 1, Rules(votes=2, max_skips=9, max_votes=5, min_agreement=1.0))
    for name in "ab":
        found = store.write(claims.claim, name, 1, 1000.0, 30.0)
        store.write(labels.submit, name, [row(found[0], "like")], 1001.0, 0.0)
    assert store.write(claims.claim, "c", 1, 1000.0, 30.0) == []
    assert store.read(jobs.load, ["job"])[0].items[0].value == 1.0


def test_the_group_closest_to_completion_comes_first(store: Store) -> None:
    ask(store, 4, Rules(), "older")
    ask(store, 4, Rules(), "begun")
    first = store.write(claims.claim, "anna", 8, 1000.0, 30.0)
    begun = [x for x in first if _job(store, x) == "begun"]
    store.write(labels.submit, "anna", [row(x, "like") for x in begun[:2]], 1001.0, 0.0)
    rest = [LeaseRef(assignment=str(x.assignment), token=x.token) for x in first]
    store.write(claims.release, "anna", rest)
    again = store.write(claims.claim, "ben", 3, 1002.0, 30.0)
    assert [_job(store, x) for x in again] == ["begun", "begun", "older"]


def _job(store: Store, lease: HumanLease) -> str:
    query = select(item.c.job_id).join(assignment, assignment.c.item_id == item.c.id)
    chosen = query.where(assignment.c.id == lease.assignment)
    return str(store.read(lambda c: c.execute(chosen).scalar_one()))
