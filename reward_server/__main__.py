"""``python -m reward_server [COMMAND]``: see COMMANDS; serve is the default.

Imports only what the chosen command needs, so that scorer processes start fast.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource

from reward_server.commands.access import (
    add_invite_arguments,
    add_keys_arguments,
    add_webhooks_arguments,
    invite,
    keys,
    webhooks,
)
from reward_server.commands.golds import add_gold_arguments, gold
from reward_server.commands.provision import add_provision_arguments, provision
from reward_server.scorers import UnknownScorer
from reward_server.settings import ScorerOptions, ServeOptions, Settings
from reward_server.store import StoreError

OptionsT = TypeVar("OptionsT", bound=BaseSettings)
Sources = dict[str, CliSettingsSource[Any]]
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
        name = str((*first["loc"], "setting")[0])
        where = f"--{name.replace('_', '-')} or REWARD_{name.upper()}"
        why = first["msg"].removeprefix("Value error, ")
        sys.stderr.write(f"reward_server: {where}: {why}, not {first['input']!r}\n")
        return 2


def _run(words: list[str]) -> int:
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words = ["serve", *words]
    command = words[0]
    if command == "invite" and words[1:2] and words[1].startswith("--"):
        words = ["invite", "create", *words[1:]]
    parser, sources = _parser(command)
    args = parser.parse_args(words)
    if command == "simulate":
        from reward_server.simulation import simulate

        return simulate.main(args)
    if command == "scorer":
        from reward_server.scoring import worker

        chosen = _chosen(ScorerOptions, args, sources[command])
        # A process started by a server is sent that server's own settings.
        return worker.main(None if chosen.attached else chosen.settings(), chosen.heartbeat)
    if command in ADMINISTRATION:
        settings = Settings(data=Path(args.data).resolve(), database=args.database)
        return ADMINISTRATION[command](args, settings)
    from reward_server.serve import serve

    return serve(_chosen(ServeOptions, args, sources[command]).settings())


def _parser(command: str) -> tuple[argparse.ArgumentParser, Sources]:
    """The parser of all commands, and what reads the options of those that are settings."""
    parser = argparse.ArgumentParser(prog="python -m reward_server", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    sources: Sources = {
        name: CliSettingsSource(options, root_parser=commands.add_parser(name, help=text))
        for name, options, text in (
            ("serve", ServeOptions, "run the server (default)"),
            ("scorer", ScorerOptions, "one more scorer process"),
        )
    }
    simulated = commands.add_parser("simulate", help="annotators who click by themselves")
    add_keys_arguments(commands.add_parser("keys", help="API keys"))
    add_invite_arguments(commands.add_parser("invite", help="people who label, or ask them"))
    add_gold_arguments(commands.add_parser("gold", help="pictures whose answer is known"))
    add_webhooks_arguments(commands.add_parser("webhooks", help="whom to tell when jobs end"))
    add_provision_arguments(commands.add_parser("provision", help="a stack's secrets, in files"))
    if command == "simulate":
        from reward_server.simulation import simulate

        simulate.add_arguments(simulated)
    return parser, sources


def _chosen(
    options: type[OptionsT], args: argparse.Namespace, source: CliSettingsSource[Any]
) -> OptionsT:
    """What the command line says, else the environment, else the defaults."""
    words = argparse.Namespace(**{k: v for k, v in vars(args).items() if k != "command"})
    return CliApp.run(options, cli_args=words, cli_settings_source=source)


if __name__ == "__main__":
    sys.exit(main())
