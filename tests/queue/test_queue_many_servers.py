"""Promise: several servers and scorers on one database, each with connections of its own, share the
work: nothing is scored twice, nothing is left over, no two of them stand in each other's way.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, func, select

from reward_server.domain.jobs import Blob, Kind, NewItem, NewJob, Rules
from reward_server.domain.outcomes import Scored
from reward_server.store import Store, claims, jobs, labels, leases
from reward_server.store.locks import lock_items, lock_jobs, lock_name
from reward_server.store.tables import assignment, job
from shared.schema.labels import SubmitRow

IMAGES = [Blob(f"{i:064x}", "image/png", 1, 8, 8) for i in range(12)]
MACHINES, PEOPLE, JOBS = 4, 3, 9


def new_job(number: int, kind: Kind, key: str | None = None) -> NewJob:
    """Six items; every job brings the same images in another order."""
    images = random.Random(number).sample(IMAGES, 6)
    items = [NewItem(prompt=f"picture {i}", image=one) for i, one in enumerate(images)]
    reward = "ocr" if kind == "machine" else "human"
    name = f"{kind}-{number}"
    rules = Rules() if kind == "machine" else Rules(votes=2, max_skips=9)
    return NewJob(name, kind, reward, "m", items, f"f{number}", key, 0, "run", rules=rules)


def together(url: str, *works: Callable[[Store], object]) -> list[object]:
    """Run every function at the same time, each on a store of its own, like one server each."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[Store], object]) -> object:
        store = Store(url)
        try:
            start.wait()
            return work(store)
        finally:
            store.close()

    with ThreadPoolExecutor(len(works)) as threads:
        return [one.result() for one in [threads.submit(run, work) for work in works]]


def accept(kind: Kind) -> Callable[[Store], object]:
    def work(store: Store) -> None:
        for number in range(JOBS):
            store.write(jobs.accept, new_job(number, kind), 1000.0, 10**6)

    return work


def machine(name: str, *, dies: bool = False) -> Callable[[Store], int]:
    """Claims small batches; one that dies drops its first and is started again."""

    def work(store: Store) -> int:
        scored, idle, dropped = 0, 0, not dies
        while idle < 60:
            batch, _ = store.write(leases.claim_machine, name, ["ocr"], 4, 1000.0, 30.0)
            idle = 0 if batch else idle + 1
            if batch and not dropped:
                dropped = True
                store.write(leases.release_worker, name, 1000.0)
            elif batch:
                store.write(leases.finish_machine, [(one, Scored(1.0)) for one in batch], 1000.0)
                scored += len(batch)
        return scored

    return work


def liked(lease: claims.HumanLease) -> SubmitRow:
    return SubmitRow(
        assignment=str(lease.assignment),
        token=lease.token,
        label="like",
        client_label_id=f"click-{lease.assignment}",
    )


def person(name: str) -> Callable[[Store], int]:
    def work(store: Store) -> int:
        counted, idle = 0, 0
        while idle < 60:
            found = store.write(claims.claim, name, 4, 1000.0, 30.0)
            idle = 0 if found else idle + 1
            rows = [liked(one) for one in reversed(found)]
            results, _ = store.write(labels.submit, name, rows, 1000.0, 0.0)
            counted += sum(result.outcome == "counted" for result in results)
        return counted

    return work


def sweep(store: Store) -> None:
    for _ in range(60):
        store.write(leases.sweep, 1000.0, 0.0)


def test_machines_people_and_sweepers_share_the_work(database: str) -> None:
    works = [accept("machine"), accept("human"), sweep, sweep]
    works += [machine(f"machine {i}", dies=i < 2) for i in range(MACHINES)]
    works += [person(f"person {i}") for i in range(PEOPLE)]
    counts = together(database, *works)[4:]
    store = Store(database)
    # Whoever was idle early left work behind that came later; nothing of it is lost.
    counts += [machine("last machine")(store), *(person(f"last {i}")(store) for i in range(2))]
    records = store.read(jobs.load, [f"{k}-{n}" for n in range(JOBS) for k in ("machine", "human")])
    votes = select(assignment.c.kind, func.count()).where(assignment.c.state == "done")
    done = dict(store.read(lambda c: c.execute(votes.group_by(assignment.c.kind)).all()))
    store.close()
    assert [record.job.status for record in records] == ["succeeded"] * (2 * JOBS)
    assert {item.leased for record in records for item in record.items} == {0}
    assert done == {"machine": 6 * JOBS, "human": 12 * JOBS}
    assert sum(counts) == 18 * JOBS


def test_one_key_sent_to_many_servers_makes_one_job(database: str) -> None:
    def send(number: int) -> Callable[[Store], object]:
        new = new_job(0, "machine", key="key:team:1")
        mine = NewJob(**(vars(new) | {"id": f"job{number}"}))
        return lambda store: store.write(jobs.accept, mine, 1000.0, 10**6)

    answers = together(database, *(send(number) for number in range(6)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sorted(before for _, before in answers) == [False] + [True] * 5


def test_many_servers_keep_one_limit(database: str) -> None:
    def send(number: int) -> Callable[[Store], object]:
        def work(store: Store) -> bool:
            try:
                store.write(jobs.accept, new_job(number, "machine"), 1000.0, 20)
            except jobs.QueueFull:
                return False
            return True

        return work

    assert sorted(together(database, *(send(n) for n in range(6)))) == [False] * 3 + [True] * 3


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_one_server_sweeps_at_a_time_and_a_dead_one_is_replaced(database: str) -> None:
    first, second = Store(database), Store(database)
    new = NewJob(**(vars(new_job(0, "machine")) | {"deadline_s": 1.0}))
    first.write(jobs.accept, new, 1000.0, 10**6)

    def while_sweeping(connection: Connection) -> list[str]:
        lock_name(connection, "sweep")
        return second.write(leases.sweep, 2000.0, 0.0)

    assert first.write(while_sweeping) == []
    assert second.write(leases.sweep, 2000.0, 0.0) == ["machine-0"]
    first.close()
    second.close()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_weighed_job_ends_without_waiting_for_who_waits_for_it(database: str) -> None:
    """Somebody undoes a label: they hold its item, and are about to hold its job."""
    first, second = Store(database), Store(database)
    items = [NewItem(prompt=f"picture {i}", image=IMAGES[i]) for i in range(2)]
    new = NewJob("job", "human", "human", "m", items, "f", None, 0, weights="reliability")
    first.write(jobs.accept, new, 1000.0, 10**6)
    leased = first.write(claims.claim, "ann", 2, 1000.0, 30.0)
    judged, last = (liked(one) for one in leased)
    first.write(labels.submit, "ann", [judged], 1000.0, 0.0)

    def while_undoing(connection: Connection) -> str:
        held = select(assignment.c.item_id).where(assignment.c.id == leased[0].assignment)
        lock_items(connection, connection.execute(held).scalars())
        second.write(labels.submit, "ann", [last], 1000.0, 0.0)
        lock_jobs(connection, ["job"])
        return str(connection.execute(select(job.c.status)).scalar_one())

    assert first.write(while_undoing) == "running"
    assert second.write(leases.sweep, 1000.0, 0.0) == ["job"]
    (record,) = first.read(jobs.load, ["job"])
    assert record.job.status == "succeeded" and record.job.value_sum == 2.0
    assert all("unweighted" in one.detail for one in record.items)
    first.close()
    second.close()
