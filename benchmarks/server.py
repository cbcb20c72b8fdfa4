"""``python -m benchmarks.server``: what the reward server costs, in one run on the same cores.

Every round measures the engine without a server, this server, and a peer, one after the other;
medians over the rounds are compared. The queue is measured without HTTP on both databases.
"""

# ruff: noqa: T201 (a command speaks to its terminal)

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import http_speed, queue_speed
from benchmarks.engines import Engines
from benchmarks.pictures import words
from reward_server.domain.jobs import Kind
from reward_server.store import Store
from tests.support.postgres_setup import Postgres, postgres
from tests.support.server_setup import running

SIDE: Final = 256
PICTURES: Final = 8
KINDS: Final[tuple[Kind, ...]] = ("machine", "human")
SINGLE_SHARE: Final = 8
"""One by one, this much fewer items are enough."""


@dataclass(frozen=True)
class Row:
    """One figure and its goal: at least it, at most it, or none."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write down; 0 if it could be measured, whatever the figures say."""
    args = _arguments(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        if not args.queue_only:
            rows += _http(args, Path(folder), raw)
        if not args.http_only:
            with postgres() as cluster:
                rows += _queues(args, Path(folder), cluster, raw)
    _show(rows)
    if args.json is not None:
        figures = [asdict(row) | {"met": row.met} for row in rows]
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        report = {"settings": settings, "figures": figures, "raw": raw}
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--cores", type=int, default=2, help="for everything; default: %(default)s")
    parser.add_argument("--scorers", type=int, default=2, help="processes with an engine each")
    parser.add_argument("--clients", type=int, default=6, help="groups of 24 in flight")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="each load of a round")
    parser.add_argument("--requests", type=int, default=400, help="for each latency")
    parser.add_argument("--processes", type=int, default=4, help="on the queue")
    parser.add_argument("--queue-items", type=int, default=9600, help="each; default: %(default)s")
    parser.add_argument("--http-only", action="store_true")
    parser.add_argument("--queue-only", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser.parse_args(argv)


def _http(args: argparse.Namespace, folder: Path, raw: dict[str, Any]) -> list[Row]:
    pool = words(random.Random(0), PICTURES, SIDE)
    said, files = [word for word, _ in pool], [file for _, file in pool]
    options = ("--scorer-processes", str(args.scorers))
    rates: dict[str, list[float]] = {"engine": [], "server": [], "peer": []}
    health: dict[str, list[float]] = {"server": [], "peer": []}
    with (
        Engines(args.scorers, files, said) as engines,
        running(folder / "state", *options) as server,
        http_speed.peer() as peer_url,
    ):
        asks = {
            "server": (server.url, http_speed.our_server(server.url, files, said)),
            "peer": (peer_url, http_speed.peer_server(peer_url, files, said)),
        }
        for number in range(args.repeats):
            rates["engine"].append(engines.rate(args.seconds))
            for name, (url, ask) in asks.items():
                with http_speed.health_of(url) as looks:
                    rates[name].append(http_speed.rate(ask, args.clients, args.seconds))
                health[name] += looks
            last = {name: round(values[-1], 1) for name, values in rates.items()}
            print(f"round {number + 1} of {args.repeats}, items a second: {last}", flush=True)
        single = http_speed.our_server(server.url, files, said, size=1)
        singly = http_speed.rate(single, 4 * args.scorers, args.seconds)
        loads = {"half": singly / 2, "half the engines'": statistics.median(rates["engine"]) / 2}
        added: dict[str, list[float]] = {}
        for load, per_s in loads.items():
            alone = engines.seconds(per_s, 5)
            answers = http_speed.latencies(server.url, files, said, per_s, args.requests)
            added[load] = [1000 * (seconds - alone[index]) for index, seconds in answers]
    raw.update({"rates": rates, "singly": singly, "added_ms": added, "health_s": health})
    return _http_rows(rates, singly, added, health)


def _http_rows(
    rates: dict[str, list[float]],
    singly: float,
    added: dict[str, list[float]],
    health: dict[str, list[float]],
) -> list[Row]:
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [ours / engine for ours, engine in zip(rates["server"], rates["engine"], strict=True)]
    against = [ours / peer for ours, peer in zip(rates["server"], rates["peer"], strict=True)]
    return [
        Row("OCR, engines alone", middle["engine"], "items/s"),
        Row("OCR, this server", middle["server"], "items/s"),
        Row("OCR, peer (one process, scores in its handler)", middle["peer"], "items/s"),
        Row("server / engines", statistics.median(ratios), "", at_least=0.90),
        Row("server / peer", statistics.median(against), ""),
        Row("OCR, this server, one image a request", singly, "items/s"),
        Row("added latency at half of that, p50", _quantile(added["half"], 0.5), "ms", at_most=10),
        Row("added latency at half of that, p99", _quantile(added["half"], 0.99), "ms", at_most=50),
        Row("at half the engines' rate, p50", _quantile(added["half the engines'"], 0.5), "ms"),
        Row("at half the engines' rate, p99", _quantile(added["half the engines'"], 0.99), "ms"),
        Row("/healthz under full load, p99", _quantile_ms(health["server"]), "ms", at_most=20),
        Row("/healthz of the peer under full load, p99", _quantile_ms(health["peer"]), "ms"),
    ]


def _queues(
    args: argparse.Namespace, folder: Path, cluster: Postgres, raw: dict[str, Any]
) -> list[Row]:
    """Rounds over databases, kinds and batch sizes, each on a database of its own."""
    cases = [
        (name, kind, n) for name in ("SQLite", "PostgreSQL") for kind in KINDS for n in (24, 1)
    ]
    found: dict[tuple[str, Kind, int], list[queue_speed.Speed]] = {case: [] for case in cases}
    for number in range(args.repeats):
        for database, kind, batch in cases:
            file = folder / f"queue-{number}-{kind}-{batch}.sqlite3"
            url = f"sqlite:///{file}" if database == "SQLite" else cluster.database()
            store = Store(url)
            store.migrate()
            store.close()
            items = args.queue_items // (1 if batch > 1 else SINGLE_SHARE)
            speed = queue_speed.speed(url, kind, args.processes, batch, items)
            found[database, kind, batch].append(speed)
        print(f"round {number + 1} of {args.repeats} of the queues", flush=True)
    rows = []
    for (database, kind, batch), speeds in found.items():
        rates = [speed.items_per_s for speed in speeds]
        raw[f"queue, {database}, {kind}, {batch}"] = rates
        goal = 1500 if batch > 1 else None
        name = f"{database}, {kind} items, " + (f"batches of {batch}" if batch > 1 else "singly")
        rows.append(Row(name, statistics.median(rates), "items/s", at_least=goal))
    locked = sum(speed.locked for speeds in found.values() for speed in speeds)
    rows.append(Row("database is locked", locked, "times", at_most=0))
    return rows


def _quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def _quantile_ms(seconds: Sequence[float]) -> float:
    return 1000 * _quantile(seconds, 0.99)


def _show(rows: list[Row]) -> None:
    table = Table("figure", "value", "unit", "goal", "met")
    for row in rows:
        goal = f">= {row.at_least:g}" if row.at_least is not None else ""
        goal = f"<= {row.at_most:g}" if row.at_most is not None else goal
        met = {True: "yes", False: "NO", None: ""}[row.met]
        table.add_row(row.name, f"{row.value:.4g}", row.unit, goal, met)
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
