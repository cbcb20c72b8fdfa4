"""`python -m trainer doctor`: prints what `trainer.doctor.surroundings` finds."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.client import RewardClient
from shared.errors import RewardError
from shared.keys import api_key
from shared.schema.ops import RewardInfo
from trainer.commands.train import add_config_arguments, read_config_arguments
from trainer.doctor.configuration import config_findings
from trainer.doctor.memory import memory_findings
from trainer.doctor.surroundings import Surroundings, examine, worst
from trainer.tiny.heldout import has_only_shapes

STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to examine."""
    add_config_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print one line per finding; 1 if any failed."""
    config = read_config_arguments(args)
    url, key = config.server.url, api_key(config.server.api_key_env)
    place = Surroundings(config.model.path, config.run.folder, url, key)
    with RewardClient(url, api_key=key, budget_s=0) as client:
        findings = examine(place, client)
        if args.config is not None:
            rewards = _rewards(client)
            known = None if rewards is None else {one.name: one.model for one in rewards}
            classes = {one.name: one.classes for one in rewards or () if one.classes}
            findings += config_findings(config, known, has_only_shapes, classes)
            findings += memory_findings(config)
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        status = f"[{STYLE[finding.status]}]{finding.status}[/]"
        remedy = f"\n[dim]→ {escape(finding.remedy)}[/dim]" if finding.remedy else ""
        table.add_row(status, finding.what, escape(finding.text) + remedy)
    Console().print(table)
    return 1 if worst(findings) == "fail" else 0


def _rewards(client: RewardClient) -> list[RewardInfo] | None:
    """The server's rewards; why it does not answer was said before."""
    try:
        return client.info().rewards
    except RewardError:
        return None
