"""One scorer process: claims micro-batches of machine items, scores them, records the outcomes.

It takes its work from the store, so it needs no server to be correct. A server that started it
sends a byte on stdin when there is work (a hint; the process also looks by itself) and closes stdin
when the process should end; each report is one JSON line on stdout.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from reward_server.blobs import Blobs
from reward_server.queue import lease_seconds
from reward_server.scorers import Failed, Outcome, Scored, Scorer, ScorerItem, load
from reward_server.settings import Settings
from reward_server.store import Store, leases
from reward_server.store.leases import MachineLease
from shared.images import ImageError, decode

MAX_BATCH: Final = 32
IDLE_S: Final = 0.25
LEASE_S: Final = 120.0
"""Shortest lease: a dead process is noticed anyway, and a busy machine is no hung scorer."""
NICENESS: Final = 5

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]


def worker_name(pid: int) -> str:
    """Name under which the scorer process ``pid`` of this host holds leases."""
    return f"scorer:{socket.gethostname()}:{pid}"


def run(settings: Settings) -> int:
    """Score until stdin is closed; the process's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def report(message: dict[str, Any]) -> None:
        try:
            channel.write(json.dumps(message) + "\n")
            channel.flush()
        except BrokenPipeError:
            log.info("the server is gone; the outcomes are in the store all the same")

    store = Store(settings.database_url, full_sync=settings.durability == "full")
    blobs = Blobs(settings.data / "blobs")
    scorers = {name: load(path)() for name, path in settings.scorers.items()}
    os.nice(NICENESS)
    report({"event": "ready", "rewards": sorted(scorers)})
    name = worker_name(os.getpid())
    seconds_each = 10.0
    while _server_alive():
        lease_s = max(lease_seconds(seconds_each, MAX_BATCH), LEASE_S)
        batch = _claim(store, name, sorted(scorers), lease_s)
        if not batch:
            idle = IDLE_S if settings.reward_latency == 0 else 0.02
            select.select([0], [], [], idle)
            continue
        report({"event": "claimed", "lease_s": lease_s})
        began = time.monotonic()
        outcomes = score(scorers[batch[0].reward], batch, blobs)
        changed = store.write(leases.finish_machine, outcomes, time.time())
        seconds_each = max((time.monotonic() - began) / len(batch), 0.5 * seconds_each)
        report({"event": "scored", "jobs": changed, "reward": batch[0].reward, "items": len(batch)})
    store.close()
    return 0


def _server_alive() -> bool:
    while select.select([0], [], [], 0)[0]:
        if not os.read(0, 65536):
            return False
    return True


def _claim(store: Store, name: str, rewards: list[str], lease_s: float) -> list[MachineLease]:
    if not store.read(leases.machine_work, time.time()):
        return []
    return store.write(leases.claim_machine, name, rewards, MAX_BATCH, time.time(), lease_s)


def score(
    scorer: Scorer[Any, Any], batch: list[MachineLease], blobs: Blobs
) -> list[tuple[MachineLease, Outcome]]:
    """Outcomes of a batch; whatever goes wrong with one item stays with that item."""
    outcomes: dict[int, Outcome] = {}
    ready: dict[int, ScorerItem[Any, Any]] = {}
    for lease in batch:
        prepared = _prepare(scorer, lease, blobs)
        if isinstance(prepared, Failed):
            outcomes[lease.item] = prepared
        else:
            ready[lease.item] = prepared
    outcomes |= _run(scorer, ready)
    return [(lease, outcomes[lease.item]) for lease in batch]


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
        return Failed(f"image {lease.sha256} is not stored any more", "image_missing")
    except ValidationError as error:
        return Failed(f"target or options: {error.errors()[0]['msg']}")


def _run(scorer: Scorer[Any, Any], items: Mapping[int, ScorerItem[Any, Any]]) -> dict[int, Outcome]:
    if not items:
        return {}
    try:
        outcomes = scorer.score(list(items.values()))
        if len(outcomes) != len(items):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(items)} items")
    except Exception as error:
        log.exception("scorer %s failed on %d items", scorer.name, len(items))
        if len(items) == 1:
            return {key: Failed(f"{type(error).__name__}: {error}") for key in items}
        singly = ({key: item} for key, item in items.items())
        return {key: one for single in singly for key, one in _run(scorer, single).items()}
    return {key: _finite(one) for key, one in zip(items, outcomes, strict=True)}


def _finite(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Scored) and not math.isfinite(outcome.reward):
        return Failed(f"the scorer returned {outcome.reward}, which is no reward")
    return outcome
