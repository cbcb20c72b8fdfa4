"""Simulated annotators: people with a hidden taste, clicking over the browser's own HTTP API.

For demos and tests of a run with human feedback. They get no shortcut into the queue; what they
like is in `preferences.py`, how one of them works in `clicker.py`.
"""

# ruff: noqa: T201 (a command speaks to its terminal)

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from typing import Final

import httpx

from reward_server.simulation.clicker import Clicker, Clicks, Habits
from reward_server.simulation.tastes import DEFAULT, PREFERENCES
from shared.errors import RewardError
from shared.exchange import auth, is_loopback
from shared.schema import DEFAULT_URL
from shared.schema.labels import SessionRequest

TIMEOUT_S: Final = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m reward_server simulate`."""
    parser.add_argument("--url", default=DEFAULT_URL, help="reward server (default: %(default)s)")
    parser.add_argument("--annotators", type=_at_least_one, default=1, metavar="N")
    parser.add_argument(
        "--rate",
        type=_non_negative,
        default=5.0,
        metavar="CLICKS_PER_S",
        help="clicks per second of EACH annotator, 0 for no limit (default: %(default)s)",
    )
    parser.add_argument(
        "--noise", type=_share, default=0.1, help="share of random clicks (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--preference",
        choices=sorted(PREFERENCES),
        default=DEFAULT,
        help="; ".join(f"{n}: {(f.__doc__ or '').split('.')[0]}" for n, f in PREFERENCES.items()),
    )
    parser.add_argument("--max-labels", type=_at_least_one, default=None, metavar="N")
    parser.add_argument(
        "--api-key", default=None, help="a key with the scope 'label': one annotator of that name"
    )
    parser.add_argument(
        "--invite",
        action="append",
        default=[],
        metavar="LINK",
        help="sign in with an invitation link; repeat it for several annotators",
    )


def main(args: argparse.Namespace) -> int:
    """Let the annotators click until `--max-labels`, Ctrl-C or a server that stays away."""
    try:
        entries = _entries(args)
    except ValueError as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    tally, stop, failures = Clicks(args.max_labels), threading.Event(), list[str]()
    habits = Habits(PREFERENCES[args.preference], args.noise, args.rate, args.seed)

    def work(sign_in: SessionRequest | None) -> None:
        with _http(args.url, args.api_key) as http:
            try:
                Clicker(http, sign_in, habits, tally, stop).run()
            except RewardError as error:
                if not stop.is_set():
                    failures.append(str(error))

    threads = [threading.Thread(target=work, args=(entry,)) for entry in entries]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print(f"{len(threads)} simulated annotators click at {args.url}; Ctrl-C stops them", flush=True)
    _watch(threads, tally)
    for failure in dict.fromkeys(failures):
        print(f"simulate: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _entries(args: argparse.Namespace) -> list[SessionRequest | None]:
    """How each annotator signs in: by API key (None), by invite, or by a made-up name."""
    people = 1 if args.api_key else len(args.invite)
    if not people:
        return [SessionRequest(name=f"simulated-{n + 1}") for n in range(args.annotators)]
    if args.api_key and args.invite:
        raise ValueError("--api-key and --invite both say who clicks; give one of them")
    if args.annotators not in (1, people):
        raise ValueError(
            f"{args.annotators} annotators, but only {people} can sign in; "
            "give one --invite for each of them"
        )
    if args.api_key:
        return [None]
    return [SessionRequest(invite=link.rpartition("invite=")[2]) for link in args.invite]


def _http(url: str, api_key: str | None) -> httpx.Client:
    return httpx.Client(
        base_url=url, headers=auth(api_key), timeout=TIMEOUT_S, trust_env=not is_loopback(url)
    )


def _watch(threads: list[threading.Thread], tally: Clicks) -> None:
    """Run the threads to their end with a progress line: in place on a terminal, rare in a log."""
    started = time.monotonic()
    is_terminal = sys.stdout.isatty()
    every_s = 0.5 if is_terminal else 10.0
    for thread in threads:
        thread.start()
    shown = started
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
        if time.monotonic() - shown >= every_s:
            shown = time.monotonic()
            end = "\r" if is_terminal else "\n"
            print(f"{tally.line(shown - started):<76}", end=end, flush=True)
    print(f"{tally.line(time.monotonic() - started):<76}", flush=True)


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _non_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value} is not a rate; 0 means no limit")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not a share between 0 and 1")
    return value
