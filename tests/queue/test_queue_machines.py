"""Promise: machine work is recorded once, retried when a process dies, given up after three tries,
and a poisonous item takes no other item down with it.
"""

from __future__ import annotations

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from reward_server.domain.jobs import Blob, NewItem, NewJob
from reward_server.domain.outcomes import Failed, Scored
from reward_server.store import Store, jobs, leases
from reward_server.store.leases import MachineLease
from reward_server.store.tables import assignment, item

IMAGE = Blob("a" * 64, "image/png", 1, 8, 8)


def ask(store: Store, n: int, reward: str = "ocr", job_id: str = "job", **fields: float) -> None:
    items = [NewItem(prompt=f"picture {i}", image=IMAGE) for i in range(n)]
    new = NewJob(job_id, "machine", reward, "m", items, job_id, None, 0, **fields)
    store.write(jobs.accept, new, 1000.0, 10**6)


def claim(store: Store, worker: str = "w", now: float = 1000.0) -> list[MachineLease]:
    return store.write(leases.claim_machine, worker, ["ocr", "counting"], 32, now, 30.0)[0]


def statuses(store: Store, job_id: str = "job") -> list[str]:
    return [row.status for row in store.read(jobs.load, [job_id])[0].items]


def test_a_batch_holds_one_reward_only(store: Store) -> None:
    ask(store, 3, "ocr", "a")
    ask(store, 3, "counting", "b")
    assert [{lease.reward for lease in claim(store)} for _ in range(2)] == [{"ocr"}, {"counting"}]
    assert claim(store) == []


def test_priority_then_deadline_decides_the_order(store: Store) -> None:
    ask(store, 1, job_id="late")
    ask(store, 1, job_id="soon", deadline_s=60.0)
    ask(store, 1, job_id="urgent", priority=5)
    assert [lease.job for lease in claim(store)] == ["urgent", "soon", "late"]


def test_processes_that_stand_by_get_their_share_of_a_short_queue(store: Store) -> None:
    def share(worker: str) -> tuple[int, bool]:
        found = store.write(leases.claim_machine, worker, ["ocr"], 8, 1000.0, 30.0, 2)
        return len(found[0]), found[1]

    ask(store, 5)
    assert [share(name) for name in "abcd"] == [(3, True), (1, True), (1, False), (0, False)]
    ask(store, 30, job_id="a long one")
    assert [share(name) for name in "ab"] == [(8, True), (8, True)]


def test_outcomes_are_recorded_with_their_facts(store: Store) -> None:
    ask(store, 2)
    batch = claim(store)
    outcomes = [Scored(0.5, {"text": "A"}), Failed("unreadable")]
    assert store.write(leases.finish_machine, list(zip(batch, outcomes, strict=True)), 1001.0) == [
        "job"
    ]
    record = store.read(jobs.load, ["job"])[0]
    assert record.job.status == "partial"
    assert [(r.value, r.detail, r.error_code) for r in record.items] == [
        (0.5, {"text": "A"}, None),
        (None, None, "scorer_failed"),
    ]


def test_a_dead_worker_gives_its_items_back_and_its_late_outcome_is_dropped(store: Store) -> None:
    ask(store, 1)
    dead = claim(store, "dead")
    store.write(leases.release_worker, "dead", 1001.0)
    alive = claim(store, "alive", 1001.0)
    assert store.write(leases.finish_machine, [(dead[0], Scored(0.0))], 1002.0) == []
    store.write(leases.finish_machine, [(alive[0], Scored(1.0))], 1003.0)
    assert [row.value for row in store.read(jobs.load, ["job"])[0].items] == [1.0]


def test_a_poisonous_item_is_isolated_and_given_up_after_three_claims(store: Store) -> None:
    ask(store, 5)
    claims, now = [], 1000.0
    while batch := claim(store, now=now):
        claims.append(len(batch))
        if any(lease.prompt == "picture 2" for lease in batch):
            store.write(leases.release_worker, "w", now)
        else:
            store.write(leases.finish_machine, [(x, Scored(1.0)) for x in batch], now)
        now += 1.0
    assert claims[0] == 5 and set(claims[1:]) == {1}
    assert statuses(store) == ["ok", "ok", "error", "ok", "ok"]
    bad = store.read(jobs.load, ["job"])[0].items[2]
    assert (bad.error_code, bad.attempts, bad.value) == ("scorer_crashed", 3, None)


def test_a_lease_that_runs_out_frees_the_item(store: Store) -> None:
    ask(store, 1)
    claim(store)
    assert not store.read(leases.due, 1029.0)
    assert store.read(leases.due, 1031.0)
    store.write(leases.sweep, 1031.0, 0.0)
    assert len(claim(store, now=1031.0)) == 1


def test_the_deadline_closes_what_was_not_scored(store: Store) -> None:
    ask(store, 2, deadline_s=10.0)
    batch = claim(store)
    store.write(leases.finish_machine, [(batch[0], Scored(1.0))], 1005.0)
    assert store.write(leases.sweep, 1010.0, 0.0) == ["job"]
    assert statuses(store) == ["ok", "incomplete"]
    assert store.write(leases.finish_machine, [(batch[1], Scored(1.0))], 1011.0) == []


def test_a_delay_holds_items_back(store: Store) -> None:
    ask(store, 1, delay_s=2.0)
    assert not store.read(leases.machine_work, 1001.9)
    assert claim(store, now=1001.9) == []
    assert len(claim(store, now=1002.0)) == 1


def test_too_much_work_is_refused_before_any_of_it_is_accepted(store: Store) -> None:
    new = NewJob("big", "machine", "ocr", "m", [NewItem("p", image=IMAGE)] * 5, "f", None, 0)
    with pytest.raises(jobs.QueueFull):
        store.write(jobs.accept, new, 1000.0, 4)
    assert store.read(jobs.load, ["big"]) == []
    assert store.read(jobs.pending, "machine") == 0


def test_every_revision_means_a_change(store: Store) -> None:
    ask(store, 2)
    seen = [store.read(jobs.heads, ["job"])["job"].rev]
    batch = claim(store)
    for lease in batch:
        seen.append(store.read(jobs.heads, ["job"])["job"].rev)
        store.write(leases.finish_machine, [(lease, Scored(1.0))], 1001.0)
    seen.append(store.read(jobs.heads, ["job"])["job"].rev)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    "broken",
    [
        update(item).values(done=1, leased=1),
        update(item).values(leased=-1),
        update(item).values(value=0.0),
        update(item).values(status="ok"),
    ],
    ids=["slots", "negative", "number without ok", "ok without number"],
)
def test_the_database_itself_refuses_broken_items(store: Store, broken: object) -> None:
    ask(store, 1)
    with pytest.raises(IntegrityError):
        store.write(lambda c: c.execute(broken))


def test_the_database_itself_refuses_a_second_lease_of_one_worker(store: Store) -> None:
    ask(store, 1)
    claim(store)
    columns = [c for c in assignment.c if c.name != "id"]
    copy = assignment.insert().from_select([c.name for c in columns], select(*columns))
    with pytest.raises(IntegrityError):
        store.write(lambda c: c.execute(copy))
