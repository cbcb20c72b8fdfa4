"""The command line: finds the command, and turns designed errors into one clear message.

Imports only the chosen command, so that `--help` does not wait for torch. Exit codes: 0 done,
1 the doctor found a fault, 2 an error that was explained, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from shared.errors import RewardError
from trainer.errors import TrainerError

COMMANDS = {
    "demo": ("trainer.commands.demo", "reward server, training, evaluation and report in one go"),
    "train": ("trainer.commands.train", "train a few-step model on rewards over HTTP"),
    "eval": ("trainer.commands.eval", "measure models on held-out prompts"),
    "ablate": ("trainer.commands.ablate", "a matrix of runs, and the page of its results"),
    "report": ("trainer.commands.report", "write the report of a run again"),
    "export": ("trainer.commands.export", "the trained LoRA for diffusers, PEFT, ComfyUI, kohya"),
    "import-lora": ("trainer.commands.import_lora", "anybody's LoRA, as training starts from it"),
    "doctor": ("trainer.commands.doctor", "look for what would stop a run"),
    "plan": ("trainer.commands.plan", "memory, work, disk and traffic of a configuration"),
    "pretrain": ("trainer.pretraining.pretrain", "make the embedded model from nothing"),
}
EXPLAINED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # transformers announces at import what it would do with a torchvision; nothing here needs one.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    parser = argparse.ArgumentParser(prog="python -m trainer", description="TDM-R1 trainer.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = words[0] if words else ""
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == chosen:
            import_module(module).add_arguments(sub)
    args = parser.parse_args(words)
    try:
        code: int = import_module(COMMANDS[args.command][0]).main(args)
    except (TrainerError, RewardError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXPLAINED
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"{stop or 'interrupted'}\n")
        return INTERRUPTED
    return code
