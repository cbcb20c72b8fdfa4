"""`python -m trainer doctor`: prints what `trainer.doctor` finds."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.client import RewardClient
from shared.errors import RewardError
from shared.keys import api_key
from trainer.config import load_config
from trainer.doctor import Surroundings, examine, worst
from trainer.doctor_config import config_findings

STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to examine."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="of the run in question")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--model", type=Path, metavar="DIR", help="short for --set model.path=DIR")
    parser.add_argument("--server", metavar="URL", help="short for --set server.url=URL")


def main(args: argparse.Namespace) -> int:
    """Print one line per finding; 1 if any failed."""
    short = {"model.path": args.model, "server.url": args.server}
    given = [f'{name}="{value}"' for name, value in short.items() if value is not None]
    config = load_config(args.config, [*args.overrides, *given])
    url, key = config.server.url, api_key(config.server.api_key_env)
    place = Surroundings(config.model.path, config.run.folder, url, key)
    with RewardClient(url, api_key=key, budget_s=0) as client:
        findings = examine(place, client)
        if args.config is not None:
            findings += config_findings(config, _known(client))
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        status = f"[{STYLE[finding.status]}]{finding.status}[/]"
        remedy = f"\n[dim]→ {escape(finding.remedy)}[/dim]" if finding.remedy else ""
        table.add_row(status, finding.what, escape(finding.text) + remedy)
    Console().print(table)
    return 1 if worst(findings) == "fail" else 0


def _known(client: RewardClient) -> dict[str, str] | None:
    """The server's rewards and what scores them; why it does not answer was said before."""
    try:
        return {reward.name: reward.model for reward in client.info().rewards}
    except RewardError:
        return None
