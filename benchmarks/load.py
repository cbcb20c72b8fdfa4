"""Those who ask for rewards: patient ones, and ones that break off, repeat themselves and lie."""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit

import httpx

from benchmarks.pictures import Group
from benchmarks.world import World
from shared.client import RewardError
from shared.exchange import Call, Exchange
from shared.schema import Job, ScoreRequest

IN_FLIGHT: Final = {"ocr": 1024, "counting": 2048, "human": 4096}
"""Items of one reward that wait at a time; servers refuse beyond 4096 machine items."""
WATCHED: Final = 200
"""Jobs in one wait-for-many request."""
PIECES: Final = 10
TRICK_SHARE: Final = 0.06
"""Share of groups for each of the tricks."""


class Requesters:
    """Threads that send groups until there are none left, and threads that wait for the answers."""

    def __init__(self, world: World, groups: Iterator[Group], run_id: str, seed: int) -> None:
        self._world = world
        self._groups = groups
        self._run_id = run_id
        self._seed = seed
        self._next = threading.Lock()
        self._in_flight = dict.fromkeys(IN_FLIGHT, 0)
        self._open: queue.SimpleQueue[tuple[Group, str]] = queue.SimpleQueue()
        self._sending = 0
        self.unfinished = 0
        """Groups that were begun and are not answered yet."""

    def send(self, number: int) -> None:
        """The life of one sending thread."""
        rng = random.Random(f"{self._seed}/send/{number}")
        while not self._world.over and (group := self._take()) is not None:
            job = self._place(group, rng)
            if job is None:
                self._done(group)
            else:
                self._open.put((group, job.id))

    def _take(self) -> Group | None:
        with self._next:
            if self._world.out_of_time:
                return None
            group = next(self._groups, None)
            if group is None:
                return None
            self.unfinished += 1
            self._in_flight[group.reward] += len(group.items)
        while self._in_flight[group.reward] > IN_FLIGHT[group.reward] and not self._world.over:
            self._world.pause(0.05)
        return group

    def _done(self, group: Group) -> None:
        with self._next:
            self._in_flight[group.reward] -= len(group.items)
            self.unfinished -= 1

    def _place(self, group: Group, rng: random.Random) -> Job | None:
        """Have a group accepted, not always in the politest way."""
        world, request = self._world, group.request(self._run_id)
        items = [[one.prompt, one.truth] for one in group.items]
        facts = {"key": group.key, "reward": group.reward, "votes": group.votes, "items": items}
        world.ledger.write("sending", **facts)
        if rng.random() < TRICK_SHARE:
            self._break_off(group, rng, share=rng.uniform(0.1, 0.9))
        if rng.random() < TRICK_SHARE:
            self._break_off(group, rng, share=1.0)
        if rng.random() < TRICK_SHARE:
            world.trick("sent twice at once")
            with ThreadPoolExecutor(2) as threads:
                twice = [
                    threads.submit(self._submit, group, random.Random(rng.random()))
                    for _ in range(2)
                ]
                first, second = (one.result() for one in twice)
            job = first or second
        else:
            job = self._submit(group, rng)
        if job is not None and rng.random() < TRICK_SHARE:
            world.trick("key of another request")
            self._misuse(group, request.model_copy(update={"priority": 7}), rng)
        return job

    def _submit(self, group: Group, rng: random.Random) -> Job | None:
        """Send until one of the servers has accepted."""
        request = group.request(self._run_id)
        wait = rng.choice((0.0, 0.0, 5.0))
        while not self._world.over:
            try:
                client = self._world.client(rng)
                job = client.submit(request, idempotency_key=group.key, wait=wait)
            except RewardError as error:
                if not error.retryable:
                    self._world.ledger.write("refused", key=group.key, why=str(error))
                    return None
                continue
            self._world.ledger.write("accepted", key=group.key, job=job.id)
            return job
        return None

    def _break_off(self, group: Group, rng: random.Random, share: float) -> None:
        """Send a share of the request piece by piece and hang up; it may be accepted unheard."""
        self._world.trick("hung up in mid-body" if share < 1 else "hung up while waiting")
        url, pause = rng.choice(self._world.urls), rng.choice((0.0, 0.005, 0.05))
        body = group.request(self._run_id).model_dump_json(exclude_none=True).encode()
        head = (
            f"POST /score HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
            "Content-Type: application/json\r\nPrefer: wait=30\r\n"
            f"Idempotency-Key: {group.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            where = (urlsplit(url).hostname, urlsplit(url).port)
            with socket.create_connection(where, timeout=10) as connection:
                sent = head.encode() + body[: int(share * len(body))]
                for at in range(0, len(sent), max(1, len(sent) // PIECES)):
                    connection.sendall(sent[at : at + max(1, len(sent) // PIECES)])
                    time.sleep(pause)
        except OSError:
            pass  # the server is being killed: that is what the run is about

    def _misuse(self, group: Group, other: ScoreRequest, rng: random.Random) -> None:
        """The same key with another body: the server has to refuse it."""
        steps = Exchange("", 0.0, time.monotonic, rng.uniform)
        call = next(steps.submit(other, group.key, 0.0))
        assert isinstance(call, Call)
        url = rng.choice(self._world.urls)
        try:
            answer = httpx.post(
                url + "/score",
                content=call.body,
                headers=dict(call.headers),
                trust_env=False,
                timeout=30,
            )
        except httpx.TransportError:
            return
        if answer.status_code < 500 and answer.status_code != 429:
            self._world.ledger.write("misused", key=group.key, status=answer.status_code)

    def watch(self, number: int) -> None:
        """The life of one waiting thread."""
        rng = random.Random(f"{self._seed}/watch/{number}")
        mine: dict[str, Group] = {}
        while not self._world.over:
            while len(mine) < WATCHED and not self._open.empty():
                try:
                    group, job_id = self._open.get_nowait()
                except queue.Empty:
                    break
                mine[job_id] = group
            if not mine:
                self._world.pause(0.1)
                continue
            try:
                found = self._world.client(rng).wait_many(list(mine), wait=2.0)
            except RewardError:
                continue
            for job in found.jobs:
                self._answered(mine.pop(job.id), job, rng)

    def _answered(self, group: Group, job: Job, rng: random.Random) -> None:
        self._world.ledger.write("answered", key=group.key, job=job.id, rewards=job.rewards)
        self._world.count(group.reward, len(group.items))
        if rng.random() < TRICK_SHARE:
            self._world.trick("sent again after the answer")
            self._submit(group, rng)
        self._done(group)
