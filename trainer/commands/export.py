"""`python -m trainer export RUN --out DIR`: the trained LoRA for the programs that load LoRAs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from trainer.export import export
from trainer.models.lora_formats.writing import FORMATS
from trainer.run.folder import read_config, trained_lora


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, where to, and who will load it."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--format",
        choices=list(FORMATS),
        default="diffusers",
        dest="kind",
        help="kohya: also Forge and A1111 (default: diffusers)",
    )


def main(args: argparse.Namespace) -> int:
    """Write the LoRA with its README."""
    config = read_config(args.run)
    folder = export(trained_lora(args.run), config, args.out, args.kind)
    Console().print(f"exported to {folder}; how to use it: {folder / 'README.md'}", markup=False)
    return 0
