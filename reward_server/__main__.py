"""``python -m reward_server [serve|scorer|simulate|keys|invite]``: serve is the default.

Imports only what the chosen command needs, so that scorer processes start fast.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from reward_server.commands import (
    add_data_arguments,
    add_invite_arguments,
    add_keys_arguments,
    invite,
    keys,
)
from reward_server.scorers import REGISTRY, UnknownScorer
from reward_server.settings import Settings
from reward_server.store import StoreError

COMMANDS = ("serve", "simulate", "keys", "invite", "scorer")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except (StoreError, UnknownScorer) as error:
        sys.stderr.write(f"reward_server: {error}\n")
        return 2


def _run(words: list[str]) -> int:
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words = ["serve", *words]
    command = words[0]
    parser = _parser(command)
    args = parser.parse_args(words)
    if command == "simulate":
        from reward_server import simulate

        return simulate.main(args)
    if command == "scorer":
        from reward_server import worker

        return worker.main(_scorer_settings(args))
    if command in ("keys", "invite"):
        settings = Settings(data=Path(args.data).resolve(), database=args.database)
        return keys(args, settings) if command == "keys" else invite(args, settings)
    from reward_server.serve import serve

    return serve(_settings(args))


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reward_server", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    _add_serve_arguments(commands.add_parser("serve", help="run the server (default)"))
    simulated = commands.add_parser("simulate", help="annotators who click by themselves")
    add_keys_arguments(commands.add_parser("keys", help="API keys"))
    add_invite_arguments(commands.add_parser("invite", help="annotators"))
    _add_scorer_arguments(commands.add_parser("scorer", help="one more scorer process"))
    if command == "simulate":
        from reward_server import simulate

        simulate.add_arguments(simulated)
    return parser


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    add_data_arguments(parser)
    parser.add_argument("--scorer-processes", type=int, default=1)
    _add_scorer_choice(parser)
    parser.add_argument(
        "--settle", type=float, default=5.0, help="seconds a human job waits for an undo"
    )
    parser.add_argument("--max-pending-machine", type=int, default=4096)
    parser.add_argument("--max-pending-human", type=int, default=100_000)
    parser.add_argument("--durability", choices=("normal", "full"), default="normal")
    parser.add_argument("--reward-latency", type=float, default=0.0, help=argparse.SUPPRESS)


def _add_scorer_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    _add_scorer_choice(parser)
    parser.add_argument("--durability", choices=("normal", "full"), default="normal")
    parser.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)


def _add_scorer_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scorer",
        action="append",
        default=[],
        type=_scorer,
        metavar="NAME=MODULE:CLASS",
        help="add a scorer of your own, or replace one; the same for all servers and scorers",
    )


def _scorer(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([a-z0-9_-]{1,64})=([\w.]+:\w+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=MODULE:CLASS")
    return found[1], found[2]


def _scorers(args: argparse.Namespace) -> dict[str, str]:
    return dict(REGISTRY) | dict(args.scorer)


def _scorer_settings(args: argparse.Namespace) -> Settings | None:
    """None for a process started by a server, which sends it its own."""
    if args.attached:
        return None
    return Settings(
        data=Path(args.data).resolve(),
        database=args.database,
        scorers=_scorers(args),
        durability=args.durability,
    )


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        data=Path(args.data).resolve(),
        host=args.host,
        port=args.port,
        database=args.database,
        scorers=_scorers(args),
        scorer_processes=args.scorer_processes,
        settle_s=args.settle,
        max_pending_machine=args.max_pending_machine,
        max_pending_human=args.max_pending_human,
        durability=args.durability,
        reward_latency=args.reward_latency,
    )


if __name__ == "__main__":
    sys.exit(main())
