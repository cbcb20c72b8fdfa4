"""One scorer process: claims micro-batches of machine items, scores them, records the outcomes.

It takes its work from the store, so it needs no server to be correct, and any number of them share
one database. While the database is away it waits and loses nothing it has scored.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError

from reward_server.blobs import Blobs
from reward_server.clock import steady_clock
from reward_server.domain.clock import SteadyClock
from reward_server.domain.jobs import lease_seconds
from reward_server.domain.outcomes import Failed, Outcome, checked
from reward_server.logs import log_to_stderr
from reward_server.scorers import Scorer, ScorerItem, load
from reward_server.scoring.parent import Parent, ServerParent, Standalone
from reward_server.settings import Settings
from reward_server.store import Store, leases
from reward_server.store.leases import MachineLease
from shared.images import ImageError, decode

T = TypeVar("T")

MAX_BATCH: Final = 32
IDLE_S: Final = 0.25
AWAY_S: Final = 1.0
"""Pause before a database that is away is tried again."""
LEASE_S: Final = 120.0
"""Shortest lease: a dead process is noticed anyway, and a busy machine is no hung scorer."""
NICENESS: Final = 5
PIXELS_AT_ONCE: Final = 2**25
"""Decoded before they are scored: 100 MB, while a batch of the largest images has 1.6 GB."""

log = structlog.get_logger()


def worker_name(pid: int) -> str:
    """Name under which the scorer process ``pid`` of this host holds leases."""
    return f"scorer:{_machine()}:{pid}"


def is_dead(worker: str) -> bool:
    """True if ``worker`` names a process of this host that does not exist any more."""
    _, machine, pid = worker.split(":")
    if machine != _machine():
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
    return False


def _machine() -> str:
    """Where process ids mean something: containers may share a host name but not their ids."""
    ids = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{ids.stat().st_ino if ids.exists() else 0}"


def main(settings: Settings | None, heartbeat: Path | None = None) -> int:
    """Score by ``settings``; without any, for the server that started this process."""
    log_to_stderr()
    if settings is None:
        server = ServerParent()
        return run(server.settings(), server)
    store = Store(settings.database_url)
    store.migrate()
    store.close()
    return run(settings, Standalone(heartbeat))


def run(settings: Settings, parent: Parent) -> int:
    """Score until ``parent`` wants no more; the process's whole life."""
    store = Store(settings.database_url, full_sync=settings.durability == "full")
    blobs = Blobs(settings.data / "blobs")
    scorers = {name: load(path)() for name, path in settings.scorers.items()}
    os.nice(NICENESS)
    parent.report("ready", rewards=sorted(scorers))
    name, clock = worker_name(os.getpid()), steady_clock()
    seconds_each = 10.0
    share = max(settings.scorer_processes, 1)
    pause_s = IDLE_S if settings.reward_latency == 0 else 0.02
    likely = True  # that there is work: to look first would only take time
    resting = False  # and said so
    while parent.wanted():
        lease_s = max(lease_seconds(seconds_each, MAX_BATCH), LEASE_S)
        claim = partial(
            _claim, store, name, sorted(scorers), lease_s, share, clock, look=not likely
        )
        batch, more = _patiently(parent, claim) or ([], False)
        if not batch:
            if not resting:
                parent.report("idle")
            likely = parent.idle(pause_s)
            resting = not likely
            continue
        likely, resting = more, False
        parent.report("claimed", lease_s=lease_s, more=more)
        began = time.monotonic()
        outcomes = score(scorers[batch[0].reward], batch, blobs)
        finish = partial(store.write, leases.finish_machine, outcomes, clock())
        changed = _patiently(parent, finish)
        seconds_each = max((time.monotonic() - began) / len(batch), 0.5 * seconds_each)
        parent.report("scored", jobs=changed or [], reward=batch[0].reward, items=len(batch))
    store.close()
    return 0


def _patiently(parent: Parent, work: Callable[[], T]) -> T | None:
    """``work()``, again while the database is away; None once ``parent`` wants no more."""
    while True:
        try:
            return work()
        except (OperationalError, InterfaceError) as error:
            log.warning("database_away", error=str(error.orig).strip(), retry_s=AWAY_S)
        if not parent.wanted():
            return None
        parent.idle(AWAY_S)


def _claim(
    store: Store,
    name: str,
    rewards: list[str],
    lease_s: float,
    share: int,
    clock: SteadyClock,
    *,
    look: bool,
) -> tuple[list[MachineLease], bool]:
    if look and not store.read(leases.machine_work, clock()):
        return [], False
    now = clock()
    return store.write(leases.claim_machine, name, rewards, MAX_BATCH, now, lease_s, share)


def score(
    scorer: Scorer[Any, Any], batch: list[MachineLease], blobs: Blobs
) -> list[tuple[MachineLease, Outcome]]:
    """Outcomes of a batch; whatever goes wrong with one item stays with that item."""
    outcomes: dict[int, Outcome] = {}
    ready: dict[int, ScorerItem[Any, Any]] = {}
    pixels = 0
    for lease in batch:
        prepared = _prepare(scorer, lease, blobs)
        if isinstance(prepared, Failed):
            outcomes[lease.item] = prepared
            continue
        ready[lease.item] = prepared
        height, width, _ = prepared.image.shape
        pixels += height * width
        if pixels >= PIXELS_AT_ONCE:
            outcomes |= _run(scorer, ready)
            ready, pixels = {}, 0
    outcomes |= _run(scorer, ready)
    return [(lease, checked(outcomes[lease.item])) for lease in batch]


def _prepare(
    scorer: Scorer[Any, Any], lease: MachineLease, blobs: Blobs
) -> ScorerItem[Any, Any] | Failed:
    try:
        return ScorerItem(
            prompt=lease.prompt,
            image=decode(blobs.get(lease.sha256)),
            target=scorer.target.model_validate(lease.target or {}),
            options=scorer.options.model_validate(lease.options or {}),
        )
    except ImageError as error:
        return Failed(str(error), error.code)
    except FileNotFoundError:
        why = f"no image {lease.sha256} in {blobs.root}; servers and scorers share one --data"
        return Failed(why, "image_missing")
    except ValidationError as error:
        return Failed(f"target or options: {error.errors()[0]['msg']}")
    except Exception as error:
        log.error("item_failed", reward=scorer.name, item=lease.item, exc_info=True)
        return Failed(f"{type(error).__name__}: {error}")


def _run(scorer: Scorer[Any, Any], items: Mapping[int, ScorerItem[Any, Any]]) -> dict[int, Outcome]:
    if not items:
        return {}
    try:
        outcomes = scorer.score(list(items.values()))
        if not isinstance(outcomes, list | tuple):
            raise TypeError(f"score() returned a {type(outcomes).__name__}, not a list of outcomes")
        if len(outcomes) != len(items):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(items)} items")
    except Exception as error:
        log.error("scorer_failed", reward=scorer.name, items=len(items), exc_info=True)
        if len(items) == 1:
            return {key: Failed(f"{type(error).__name__}: {error}") for key in items}
        singly = ({key: item} for key, item in items.items())
        return {key: one for single in singly for key, one in _run(scorer, single).items()}
    return dict(zip(items, outcomes, strict=True))
