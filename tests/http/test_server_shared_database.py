"""Promise: servers and scorers started one by one share a PostgreSQL and a folder of images, and
kill -9 of a server, of a scorer and of the database loses nothing that was accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, select

from reward_server.store import Store
from reward_server.store.tables import assignment
from shared.client import build_request
from tests.support.postgres_setup import Postgres
from tests.support.server_setup import Scorer, Server, eventually, sign

GROUPS, TARGETS, REWARDS = 6, ("KBQ", "KBX"), [1.0, 1.0 - 1 / 3]


@contextmanager
def running(*parts: Server | Scorer) -> Iterator[None]:
    """Start all at once; whatever happens, none is left behind."""
    try:
        with ThreadPoolExecutor(len(parts)) as threads:
            for started in [threads.submit(part.start) for part in parts]:
                started.result()
        yield
    finally:
        for part in parts:
            part.end()


def score_group(server: Server, number: int) -> list[float | None]:
    request = build_request(
        "ocr",
        [f"group {number}"] * len(TARGETS),
        [sign("KBQ")] * len(TARGETS),
        targets=[{"text": target} for target in TARGETS],
        group_id=f"g{number}",
    )
    with server.client(budget_s=400.0) as client:
        return client.score(request, timeout_s=400).rewards


def test_nothing_accepted_is_lost_when_any_part_is_killed(
    tmp_path: Path, cluster: Postgres
) -> None:
    data, url = tmp_path / "data", cluster.database()
    options = ("--database", url, "--scorer-processes", "0")
    servers = [Server(data, *options), Server(data, *options)]
    scorers = [Scorer(data, url, number) for number in range(2)]
    with running(*servers, *scorers), ThreadPoolExecutor(GROUPS) as threads:
        groups = [threads.submit(score_group, servers[i % 2], i) for i in range(GROUPS)]
        eventually(lambda: any(group.done() for group in groups), 400)
        later = [threads.submit(score_group, servers[i % 2], GROUPS + i) for i in range(GROUPS)]
        scorers[0].kill()
        servers[0].kill()
        cluster.stop()
        cluster.start()
        servers[0].start()
        rewards = [one.result(timeout=400) for one in groups + later]
        assert scorers[1].stop() == 0, scorers[1].log.read_text()[-3000:]
        assert servers[0].stop() == 0
    assert rewards == [REWARDS] * (2 * GROUPS)
    store = Store(url)
    recorded = select(func.count()).where(assignment.c.state == "done")
    assert store.read(lambda c: c.execute(recorded).scalar_one()) == len(TARGETS) * 2 * GROUPS
    store.close()
