"""The queue alone: processes that claim and hand in items at the store, without HTTP or scoring."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection as SQLConnection
from sqlalchemy.exc import OperationalError

from reward_server.domain.jobs import Blob, Kind, NewItem, NewJob
from reward_server.domain.outcomes import Scored
from reward_server.store import Store, claims, jobs, labels, leases
from shared.schema.labels import SubmitRow

P = ParamSpec("P")
T = TypeVar("T")

PER_JOB: Final = 24
LEASE_S: Final = 600.0
PICTURE: Final = Blob("0" * 64, "image/png", 1000, 256, 256)


@dataclass(frozen=True)
class Speed:
    """Items a second of all processes together, and how often a database refused with "locked"."""

    items_per_s: float
    locked: int


def fill(store: Store, kind: Kind, items: int) -> None:
    """Accept ``items`` items in jobs of 24."""
    for number in range(items // PER_JOB):
        one = NewItem("a red bus", image=PICTURE, target={"text": "bus"})
        job = NewJob(
            id=f"{kind}-{time.time_ns()}-{number}",
            kind=kind,
            reward="human" if kind == "human" else "ocr",
            model="none",
            items=[one] * PER_JOB,
            fingerprint="",
            idempotency=None,
            request_bytes=0,
        )
        store.write(jobs.accept, job, time.time(), 10**9)


def speed(url: str, kind: Kind, processes: int, batch: int, items: int) -> Speed:
    """Empty a queue of ``items`` items in batches of ``batch``.

    Raises:
        RuntimeError: not every item was handed in exactly once.
    """
    store = Store(url)
    fill(store, kind, items)
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for number in range(processes):
        ours, theirs = context.Pipe()
        arguments = (theirs, url, kind, f"worker-{number}", batch)
        worker = context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        pipes.append(ours)
        workers.append(worker)
    for pipe in pipes:
        pipe.recv()
    began = time.perf_counter()
    for pipe in pipes:
        pipe.send("begin")
    found = [pipe.recv() for pipe in pipes]
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join(60)
    done = sum(one[0] for one in found)
    left = store.read(jobs.pending, kind)
    store.close()
    if done != items // PER_JOB * PER_JOB or left:
        raise RuntimeError(f"{done} of {items} items handed in, {left} still pending")
    return Speed(done / seconds, sum(one[1] for one in found))


def _work(pipe: Connection, url: str, kind: Kind, worker: str, batch: int) -> None:
    patient = _Patient(Store(url))
    turn = _judge if kind == "human" else _score
    patient.store.read(jobs.pending, kind)
    pipe.send("ready")
    pipe.recv()
    done = 0
    while handed_in := turn(patient, worker, batch):
        done += handed_in
    pipe.send((done, patient.locked))
    patient.store.close()


class _Patient:
    """Writes again what the database refused as locked, and counts how often that was."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.locked = 0

    def write(
        self, work: Callable[Concatenate[SQLConnection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        while True:
            try:
                return self.store.write(work, *args, **kwargs)
            except OperationalError as error:
                if "locked" not in str(error):
                    raise
                self.locked += 1


def _score(store: _Patient, worker: str, batch: int) -> int:
    """What a scorer process does around its scoring; how many items it were."""
    found, _ = store.write(leases.claim_machine, worker, ["ocr"], batch, time.time(), LEASE_S)
    outcomes = [(lease, Scored(1.0, {"text": "bus", "distance": 0})) for lease in found]
    if outcomes:
        store.write(leases.finish_machine, outcomes, time.time())
    return len(outcomes)


def _judge(store: _Patient, worker: str, batch: int) -> int:
    """What an annotator's browser makes the server do; how many items it were."""
    found = store.write(claims.claim, worker, batch, time.time(), LEASE_S)
    rows = [
        SubmitRow(
            assignment=str(lease.assignment),
            token=lease.token,
            label="like",
            client_label_id=f"click-{lease.assignment}",
            rt_ms=400,
        )
        for lease in found
    ]
    if rows:
        results, _ = store.write(labels.submit, worker, rows, time.time(), 0.0)
        assert all(one.outcome == "counted" for one in results)
    return len(rows)
