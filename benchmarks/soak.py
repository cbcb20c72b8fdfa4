"""``python -m benchmarks.soak``: load with faults, then an account of every single item.

Two servers and several scorers share a PostgreSQL. While clients ask for rewards, break off, repeat
themselves and click, processes are killed (SIGKILL) and the database is restarted. In the end the
clients' own ledger is compared with the servers' answers; any broken promise gives exit code 1.
"""

# ruff: noqa: T201 (a command speaks to its terminal)

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import ledger
from benchmarks.account import PROMISES, Account, Server, settle
from benchmarks.faults import Fleet, schedule, strike_all
from benchmarks.load import Requesters
from benchmarks.people import Annotator
from benchmarks.pictures import MOST_VOTES, groups
from benchmarks.world import World
from shared.client import JobNotFound, RewardClient
from tests.support.postgres_setup import postgres

RUN: Final = "soak"
SENDERS: Final = 6
WATCHERS: Final = 2
DRAIN_S: Final = 300.0
"""After the time is up nothing new is sent; what was accepted has this long to be answered."""
ENOUGH_PEOPLE: Final = 2 * MOST_VOTES - 1
"""So many that every item gets its votes or its skips from people who have not seen it yet."""
SHOWN: Final = 5
"""Violations of one kind that are printed; the JSON file has them all."""


def main(argv: list[str] | None = None) -> int:
    """Run, account, print; 0 only if everything was asked and every promise was kept."""
    args = _arguments(argv)
    # Leave through the context managers, so that no process and no database is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"ledger and logs: {folder}", flush=True)
    began = time.monotonic()
    with postgres() as cluster:
        fleet = Fleet(folder, cluster, args.scorers)
        with fleet.running():
            book = ledger.Ledger(folder / "ledger.jsonl")
            items = args.ocr + args.counting + args.human
            world = World(fleet.urls, book, items, 60 * args.minutes)
            struck, failures = _load(args, world, fleet)
            loaded_s = time.monotonic() - world.began
            book.close()
            server = _ask_all(fleet.urls[0], ledger.read(book.path))
    account = settle(ledger.read(book.path), server)
    report = {
        "asked": {"ocr": args.ocr, "counting": args.counting, "human": args.human},
        "seed": args.seed,
        "items": {name: asdict(tally) for name, tally in account.tallies.items()},
        "votes": account.votes,
        "violations": account.violations,
        "failures": failures,
        "faults": dict(struck),
        "tricks": dict(world.tricks),
        "load_s": round(loaded_s, 1),
        "items_per_s": round(world.answered.total() / loaded_s, 1),
        "total_s": round(time.monotonic() - began, 1),
        "internal_errors": _internal_errors(fleet.logs),
        "ledger": str(book.path),
    }
    whole = world.answered.total() == items and struck.total() == args.kills + args.restarts
    report["complete"] = whole
    report["passed"] = whole and account.clean and not failures
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    _show(report, account)
    return 0 if report["passed"] else 1


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--ocr", type=int, default=5_000, help="items; default: %(default)s")
    parser.add_argument("--counting", type=int, default=30_000, help="items; default: %(default)s")
    parser.add_argument("--human", type=int, default=15_000, help="items; default: %(default)s")
    parser.add_argument("--kills", type=int, default=24, help="SIGKILLs; default: %(default)s")
    parser.add_argument("--restarts", type=int, default=2, help="of the database")
    parser.add_argument("--scorers", type=int, default=1, help="started by hand, beside a server's")
    parser.add_argument("--annotators", type=_enough_people, default=ENOUGH_PEOPLE)
    parser.add_argument("--minutes", type=float, default=15.0, help="then nothing new is sent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the report")
    return parser.parse_args(argv)


def _enough_people(text: str) -> int:
    if int(text) < ENOUGH_PEOPLE:
        raise argparse.ArgumentTypeError(f"{text} people may skip an item too often to close it")
    return int(text)


def _load(args: argparse.Namespace, world: World, fleet: Fleet) -> tuple[Counter[str], list[str]]:
    """Everybody at work at once until all is answered or the time is up."""
    made = groups(random.Random(args.seed), args.ocr, args.counting, args.human)
    requesters = Requesters(world, made, RUN, args.seed)
    people = [Annotator(world, number, args.seed) for number in range(args.annotators)]
    struck: Counter[str] = Counter()
    failures: list[str] = []

    def spawn(work: Callable[..., None], *arguments: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except Exception as error:  # of any party: the run has then proven nothing
                failures.append(f"{work.__qualname__}: {type(error).__name__}: {error}")
                world.finish()

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    faults = schedule(args.kills, args.restarts)
    senders = [spawn(requesters.send, number) for number in range(SENDERS)]
    others = [spawn(requesters.watch, number) for number in range(WATCHERS)]
    others += [spawn(person.run) for person in people]
    killer = spawn(strike_all, world, fleet, faults, struck)
    try:
        _wait(world, requesters, [*senders, killer], lambda: struck.total())
    finally:
        world.finish()
        for thread in [*senders, *others, killer]:
            thread.join(120)
        world.close()
    return struck, failures


def _wait(
    world: World,
    requesters: Requesters,
    working: list[threading.Thread],
    strikes: Callable[[], int],
) -> None:
    """Show the progress until all threads in ``working`` are done and nothing is unanswered."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    printed = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("items", total=world.items)
        give_up: float | None = None
        while any(one.is_alive() for one in working) or requesters.unfinished:
            text = f"{strikes()} faults, {requesters.unfinished} open groups"
            done = world.answered.total()
            progress.update(task, completed=done, description=text)
            if not console.is_terminal and time.monotonic() - printed > 30:
                printed = time.monotonic()
                console.print(f"{done}/{world.items} items, {text}")
            if world.out_of_time and give_up is None:
                give_up = time.monotonic() + DRAIN_S
            if world.over or (give_up is not None and time.monotonic() > give_up):
                return
            time.sleep(0.2)
        progress.update(task, completed=world.answered.total())


def _ask_all(url: str, events: list[ledger.Event]) -> Server:
    """What the server says when all is calm."""
    ids = sorted({event["job"] for event in events if event["event"] == "accepted"})
    jobs: dict[str, dict[str, Any]] = {}
    with RewardClient(url, budget_s=120.0) as client:
        for job_id in ids:
            try:
                jobs[job_id] = client.job(job_id).model_dump(mode="json")
            except JobNotFound:
                continue
        stats = client.run_stats(RUN)
    text = httpx.get(f"{url}/labels/export", trust_env=False, timeout=120).raise_for_status().text
    labels = [json.loads(line) for line in text.splitlines()]
    return Server(jobs, labels, stats.requests, stats.items)


def _internal_errors(logs: list[Path]) -> int:
    """Requests that were answered 500: not as designed, even where nothing was lost."""
    return sum(
        line.get("event") == "request" and line.get("status") == 500
        for log in logs
        for line in _json_lines(log)
    )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            found = json.loads(text)
        except ValueError:
            continue
        lines += [found] if isinstance(found, dict) else []
    return lines


def _show(report: dict[str, Any], account: Account) -> None:
    columns = [name for name in report["items"]["ocr"] if name != "without"]
    table = Table("reward", *columns, "without reward")
    for reward, tally in report["items"].items():
        numbers = [str(tally[name]) for name in columns]
        why = ", ".join(f"{n} {code}" for code, n in sorted(tally["without"].items()))
        table.add_row(reward, *numbers, why or "-")
    console = Console(width=120)
    console.print(table)
    promises = Table("promise", "broken")
    for name, text in PROMISES.items():
        promises.add_row(f"no {text}", str(len(account.violations[name])))
    console.print(promises)
    for name, violations in account.violations.items():
        for text in violations[:SHOWN]:
            print(f"{name}: {text}")
    for name in ("faults", "tricks"):
        print(f"{name}: " + ", ".join(f"{n} {kind}" for kind, n in sorted(report[name].items())))
    print(
        f"{account.votes} votes; {report['items_per_s']} items a second for {report['load_s']} s; "
        f"{report['internal_errors']} requests answered 500"
    )
    for failure in report["failures"]:
        print(f"the run itself failed: {failure}")
    if not report["complete"]:
        print("incomplete: time was up before everything was asked and every fault was done")
    print("PASSED" if report["passed"] else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
