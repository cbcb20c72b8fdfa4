"""`python -m trainer export RUN --out DIR`: the trained LoRA for a stock diffusers pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from trainer.export import export
from trainer.run.folder import read_config, trained_lora


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and where to."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def main(args: argparse.Namespace) -> int:
    """Write the LoRA with its README."""
    config = read_config(args.run)
    folder = export(trained_lora(args.run), config, args.out)
    Console().print(f"exported to {folder}; how to use it: {folder / 'README.md'}", markup=False)
    return 0
