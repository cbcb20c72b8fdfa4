"""Ten training steps whose numbers are kept: what is run, and how its file is written again.

`python -m tests.arithmetic.golden.run` rewrites losses.json. A change of that file must be argued
where it is made: it says that training now computes something else.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from tests.support.fakes import FunctionServer, brightness, build_sd3_folder
from trainer.config import load_config
from trainer.loop import train
from trainer.run.log import read_metrics

FILE = Path(__file__).with_name("losses.json")
STEPS = 10
KEPT = ("loss/surrogate", "loss/fake", "loss/generator", "force/kl", "force/reward", "reward/mean")
PROMPTS = ("a red star", "two blue stars", "a sign that says 'ABC'", "a grey circle")
SETTINGS = (
    f"run.iterations={STEPS}",
    "run.live_view=false",
    "compute.threads=1",
    "compute.device=cpu",
    "lora.rank=4",
    "groups.size=4",
    "groups.per_step=3",
    "groups.dead_std=1e-6",
    "server.window=0",
    "server.patience_s=600",
    "heldout.every=0",
    "surrogate.lr=1e-3",
    "surrogate.beta=1000",
    "fake.lr=1e-3",
    "generator.lr=1e-3",
    "generator.frozen=1",
    "generator.warmup=2",
)
RECIPES: dict[str, tuple[str, ...]] = {
    "static reference": ("reference.kind=static", "surrogate.ema=0.5"),
    "dynamic reference": (
        "reference.kind=ema",
        "reference.decay=0.9",
        "surrogate.ema=0",
        "surrogate.kl=1",
        "surrogate.kl_anchor=reference",
        "generator.ratio=norm_ema",
        "generator.rho=0.5",
    ),
}

Losses = dict[str, dict[str, list[float]]]


def losses(folder: Path) -> Losses:
    """By recipe and name: one number per step, where the step has that name."""
    model = build_sd3_folder(folder / "model")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    source = f'prompts=[{{file="{prompts}", reward="brightness"}}]'
    where = [f"run.folder={folder / 'runs'}", f"model.path={model}", source]
    found: Losses = {}
    for number, (recipe, own) in enumerate(RECIPES.items()):
        config = load_config(None, [*where, *SETTINGS, *own, f"run.name=recipe-{number}"])
        with FunctionServer(brightness).client() as client:
            run = train(config, source=client, console=Console(file=io.StringIO()))
        rows = read_metrics(run)[:STEPS]
        found[recipe] = {name: [row[name] for row in rows if name in row] for name in KEPT}
    return found


def main() -> None:
    """Rewrites the file."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        FILE.write_text(json.dumps(losses(Path(folder)), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")


if __name__ == "__main__":
    main()
