"""`python -m trainer plan`: what a configuration needs, from the model's shapes alone."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from trainer.commands.train import add_config_arguments, read_config_arguments
from trainer.config import Config
from trainer.planning.plan import GPUS, UTILISATION, Plan, plan, remedies
from trainer.planning.shapes import Costs, costs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to plan."""
    add_config_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print memory by part, work by phase, and which cards hold it."""
    config = read_config_arguments(args)
    cost = costs(config)
    needed = plan(config, cost)
    console = Console()
    console.print(_memory(needed), _work(needed), _cards(config, cost, needed))
    http = f"{needed.http / 1e6:.0f} MB"
    console.print(
        f"disk: {needed.disk / 1e9:.1f} GB of checkpoints; to the reward server: "
        f"{http} an iteration. Estimates from shapes, for CUDA in bf16; seconds at "
        f"{UTILISATION:.0%} of the card's peak, rewards aside."
    )
    return 0


def _memory(needed: Plan) -> Table:
    table = Table("memory", "GB")
    for part, size in needed.memory.items():
        table.add_row(part, f"{size / 1e9:.2f}")
    table.add_row("in training", f"{sum(needed.memory.values()) / 1e9:.1f}")
    table.add_row("while the prompts are encoded", f"{needed.start / 1e9:.1f}")
    return table


def _work(needed: Plan) -> Table:
    table = Table("phase", "passes", "PFLOP")
    for phase, operations in needed.work.items():
        count = needed.passes.get(phase)
        table.add_row(phase, "" if count is None else f"{count:.0f}", f"{operations / 1e15:.3g}")
    return table


def _cards(config: Config, cost: Costs, needed: Plan) -> Table:
    table = Table("card", "fits", "s/iteration")
    for gpu in GPUS:
        wanted = remedies(config, gpu, cost)
        fits = "yes" if needed.fits(gpu) else "with " + " ".join(f"--set {w}" for w in wanted)
        name = f"{gpu.name}, {gpu.memory / 1e9:.0f} GB"
        seconds = f"{needed.seconds(gpu):.3g}"
        table.add_row(name, fits if wanted or needed.fits(gpu) else "no", seconds)
    return table
