"""`python -m trainer train`: trains against a reward server that is already running."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from trainer.config import Config, load_config
from trainer.loop import train
from trainer.tiny.judge import verdict


def add_config_arguments(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """Options that every command with a configuration takes."""
    parser.add_argument("--config", type=Path, default=default, metavar="FILE", help="TOML")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="a folder, or owner/name[@revision] on the hub"
    )
    parser.add_argument("--server", metavar="URL", help="the reward server")
    parser.add_argument("--name", help="name of the run, and of its folder")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="any value of the configuration, e.g. surrogate.lr=1e-4; may be repeated",
    )


def read_config_arguments(args: argparse.Namespace) -> Config:
    """The configuration that those options describe; the short options win over --set."""
    named = {"model.path": args.model, "server.url": args.server, "run.name": args.name}
    short = [f'{key}="{value}"' for key, value in named.items() if value is not None]
    return load_config(args.config, [*args.overrides, *short])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to train, and whether to go on where a run stopped."""
    add_config_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")


def main(args: argparse.Namespace) -> int:
    """Train to the end; the last line is the run's folder."""
    console = Console()
    folder = train(read_config_arguments(args), resume=args.resume, judge=verdict, console=console)
    console.print(f"run: {folder}", markup=False, highlight=False, soft_wrap=True)
    return 0
