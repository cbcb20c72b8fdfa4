"""`python -m trainer doctor`: prints what `trainer.doctor` finds."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.client import RewardClient
from shared.keys import api_key
from trainer.config import Config
from trainer.doctor import Surroundings, examine, worst

STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to examine."""
    defaults = Config()
    parser.add_argument("--model", type=Path, default=defaults.model.path)
    parser.add_argument("--runs", type=Path, default=defaults.run.folder)
    parser.add_argument("--server", default=defaults.server.url, metavar="URL")
    parser.add_argument("--api-key-env", default=defaults.server.api_key_env, metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """Print one line per finding; 1 if any failed."""
    key = api_key(args.api_key_env)
    place = Surroundings(args.model, args.runs, args.server, key)
    with RewardClient(args.server, api_key=key, budget_s=0) as client:
        findings = examine(place, client)
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        status = f"[{STYLE[finding.status]}]{finding.status}[/]"
        remedy = f"\n[dim]→ {escape(finding.remedy)}[/dim]" if finding.remedy else ""
        table.add_row(status, finding.what, escape(finding.text) + remedy)
    Console().print(table)
    return 1 if worst(findings) == "fail" else 0
