"""`python -m trainer report RUN`: writes report.html of a run again, without measuring anything."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from trainer.report.gather import gather
from trainer.report.page import write
from trainer.report.tables import terminal_table
from trainer.run.folder import REPORT, read_config
from trainer.tiny.heldout import model_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")


def main(args: argparse.Namespace) -> int:
    """Write the page, print its table and its path."""
    present(args.run, Console())
    return 0


def present(run: Path, console: Console) -> Path:
    """Write a run's report, show its table, and end with the path of the page."""
    report = gather(run, model=model_name(read_config(run)))
    if report.table is not None and report.evaluation is not None:
        console.print(terminal_table(report.table, report.evaluation))
    path = write(report, run / REPORT)
    console.print("report:", soft_wrap=True, end=" ")
    console.print(str(path.resolve()), soft_wrap=True, markup=False, highlight=False)
    return path
