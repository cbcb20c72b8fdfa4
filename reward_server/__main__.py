"""``python -m reward_server [COMMAND]``: see COMMANDS; serve is the default.

Imports only what the chosen command needs, so that scorer processes start fast.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from pydantic import ValidationError

from reward_server.commands.access import (
    add_data_arguments,
    add_invite_arguments,
    add_keys_arguments,
    add_webhooks_arguments,
    invite,
    keys,
    webhooks,
)
from reward_server.commands.golds import add_gold_arguments, gold
from reward_server.commands.provision import add_provision_arguments, provision
from reward_server.scorers import REGISTRY, UnknownScorer
from reward_server.settings import RATE_LIMIT, Settings
from reward_server.store import StoreError
from shared.schema.campaigns import CampaignSettings

ADMINISTRATION = {
    "keys": keys,
    "invite": invite,
    "gold": gold,
    "webhooks": webhooks,
    "provision": provision,
}
COMMANDS = ("serve", "simulate", "scorer", *ADMINISTRATION)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except (StoreError, UnknownScorer) as error:
        sys.stderr.write(f"reward_server: {error}\n")
        return 2
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str((*first["loc"], "setting")[0]).replace("_", "-")
        sys.stderr.write(f"reward_server: {option}: {first['msg']}, not {first['input']!r}\n")
        return 2


def _run(words: list[str]) -> int:
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words = ["serve", *words]
    command = words[0]
    if command == "invite" and words[1:2] and words[1].startswith("--"):
        words = ["invite", "create", *words[1:]]
    parser = _parser(command)
    args = parser.parse_args(words)
    if command == "simulate":
        from reward_server.simulation import simulate

        return simulate.main(args)
    if command == "scorer":
        from reward_server.scoring import worker

        return worker.main(_scorer_settings(args), args.heartbeat)
    if command in ADMINISTRATION:
        settings = Settings(data=Path(args.data).resolve(), database=args.database)
        return ADMINISTRATION[command](args, settings)
    from reward_server.serve import serve

    return serve(_settings(args))


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reward_server", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    _add_serve_arguments(commands.add_parser("serve", help="run the server (default)"))
    simulated = commands.add_parser("simulate", help="annotators who click by themselves")
    add_keys_arguments(commands.add_parser("keys", help="API keys"))
    add_invite_arguments(commands.add_parser("invite", help="people who label, or ask them"))
    add_gold_arguments(commands.add_parser("gold", help="pictures whose answer is known"))
    add_webhooks_arguments(commands.add_parser("webhooks", help="whom to tell when jobs end"))
    add_provision_arguments(commands.add_parser("provision", help="a stack's secrets, in files"))
    _add_scorer_arguments(commands.add_parser("scorer", help="one more scorer process"))
    if command == "simulate":
        from reward_server.simulation import simulate

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
    _add_labeling_arguments(parser)
    parser.add_argument("--max-pending-machine", type=int, default=4096)
    parser.add_argument("--max-pending-human", type=int, default=100_000)
    parser.add_argument(
        "--rate-limit",
        type=int,
        metavar="IMAGES_PER_MINUTE",
        help="of each API key, 0 for none; counted in the database, hence over all servers on it "
        f"(default: {RATE_LIMIT} beyond loopback, none on it)",
    )
    parser.add_argument("--durability", choices=("normal", "full"), default="normal")
    parser.add_argument("--reward-latency", type=float, default=0.0, help=argparse.SUPPRESS)
    _add_campaign_arguments(parser)


def _add_campaign_arguments(parser: argparse.ArgumentParser) -> None:
    """How people are asked where neither a request nor its campaign says so."""
    people = parser.add_argument_group("people", "defaults; /dashboard changes them by campaign")
    people.add_argument("--instruction", help="shown above every picture")
    people.add_argument("--votes", type=int, default=1, help="likes and dislikes per picture")
    people.add_argument("--quorum", type=int, help="equal votes that are enough")
    people.add_argument("--gold-share", type=float, default=0.1, help="known answers among them")
    people.add_argument(
        "--layout",
        choices=("single", "grid"),
        default="single",
        help="one picture at a time, or all pictures of a prompt; people may switch",
    )
    people.add_argument(
        "--weights",
        choices=("equal", "reliability"),
        default="equal",
        help="reliability: votes count by how often their annotator is right",
    )


def _add_labeling_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--onboarding", type=int, default=5, help="golds a new annotator judges first, if any exist"
    )
    parser.add_argument(
        "--gold-limit",
        type=float,
        default=0.7,
        help="below this share of right answers to golds an annotator is asked to pause",
    )
    parser.add_argument(
        "--session", type=float, default=30 * 86400.0, help="seconds a sign-in lasts without use"
    )


def _add_scorer_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    _add_scorer_choice(parser)
    parser.add_argument("--durability", choices=("normal", "full"), default="normal")
    parser.add_argument(
        "--heartbeat", type=Path, metavar="FILE", help="touched as long as the scorer is well"
    )
    parser.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)


def _add_scorer_choice(parser: argparse.ArgumentParser) -> None:
    try:
        named = [_scorer(text) for text in os.environ.get("REWARD_SCORERS", "").split()]
    except argparse.ArgumentTypeError as error:
        parser.error(f"REWARD_SCORERS: {error}")
    parser.add_argument(
        "--scorer",
        action="append",
        default=named,
        type=_scorer,
        metavar="NAME=MODULE:CLASS",
        help="add a scorer of your own, or replace one; the same for all servers and scorers "
        "(or REWARD_SCORERS, with spaces between several)",
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
        onboarding=args.onboarding,
        gold_limit=args.gold_limit,
        session_s=args.session,
        max_pending_machine=args.max_pending_machine,
        max_pending_human=args.max_pending_human,
        durability=args.durability,
        rate_limit=args.rate_limit,
        reward_latency=args.reward_latency,
        campaign=CampaignSettings(
            instruction=args.instruction,
            votes=args.votes,
            quorum=args.quorum,
            gold_share=args.gold_share,
            layout=args.layout,
            weights=args.weights,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
