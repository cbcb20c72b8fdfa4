"""How many clicks does it take to teach a taste that no prompt tells?

``python -m benchmarks.clicks`` starts a reward server, four simulated people who share a hidden
taste and click at random one time in ten, and a trainer that knows nothing but their clicks: one
vote a picture, groups ending late and out of order. Afterwards the taste itself judges every
picture that was clicked, in the order of the clicks, and fresh pictures of prompts that were never
trained on, of the model before and after; the world's own judge says of the same pictures whether
they still show what the prompt asks for.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx
import matplotlib
import numpy as np
from PIL import Image

from reward_server.domain.agreement import wilson
from reward_server.simulation.tastes import DEFAULT, PREFERENCES, Preference
from shared.images import Pixels
from tests.support.labeling_setup import ROOT, Server
from trainer.config import load_config
from trainer.evaluation.evaluate import (
    EvaluationSettings,
    Policy,
    batches,
    generate,
)
from trainer.evaluation.measure import Plan, build_policies, load_roles
from trainer.evaluation.prompts import TEXT, images
from trainer.evaluation.results import START, TRAINED
from trainer.run.folder import read_config, trained_lora
from trainer.run.interrupt import terminated_like_ctrl_c
from trainer.run.log import grid
from trainer.tiny.heldout import embedded_prompts
from trainer.tiny.judge import verdict

CONFIG: Final = ROOT / "trainer/configs/tiny-human.toml"
RUN: Final = "clicks"
PEOPLE: Final = ("--annotators", "4", "--rate", "8", "--noise", "0.1")
WINDOW: Final = 240
"""Clicks over which a like rate is taken."""
GOAL: Final = 0.85
SHOWN: Final = 2
"""Pictures of each tag in a row of the sheet."""


def click_and_train(
    folder: Path, server: Server, taste: str, clicks: int, overrides: Sequence[str]
) -> None:
    """A run in ``folder``/runs that ends when so many pictures were asked about."""
    groups = load_config(CONFIG, list(overrides)).groups
    iterations = clicks // (groups.size * groups.per_step) * (groups.replays + 1)
    values = [f"run.folder={folder / 'runs'}", f"run.name={RUN}", f"server.url={server.url}"]
    values += ["run.time_budget_minutes=600", f"run.iterations={iterations}", *overrides]
    simulate = ["simulate", "--url", server.url, *PEOPLE, "--preference", taste]
    train = ["train", "--config", str(CONFIG)]
    train += [word for value in values for word in ("--set", value)]
    with (folder / "people.log").open("wb") as log:
        people = subprocess.Popen(
            [sys.executable, "-m", "reward_server", *simulate], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            subprocess.run([sys.executable, "-m", "trainer", *train], cwd=ROOT, check=True)
        finally:
            people.terminate()
            people.wait()


def liked_in_order(server: Server, taste: Preference) -> list[bool]:
    """What the taste says of every picture that was clicked, in the order of the clicks."""
    labels = sorted(server.labels(), key=lambda one: one["at"])
    verdicts: list[bool] = []
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        for label in labels:
            found = http.get(f"/images/sha256-{label['sha256']}").raise_for_status()
            with Image.open(io.BytesIO(found.content)) as image:
                verdicts.append(taste(np.asarray(image.convert("RGB"))))
    return verdicts


def like_rate(
    policy: Policy, taste: Preference, per_tag: int
) -> tuple[dict[str, float], list[Pixels]]:
    """On held-out prompts: like rate with its 95 % interval, share still right, SHOWN pictures."""
    prompts = {tag: pool for tag, pool in embedded_prompts().items() if tag != TEXT}
    liked, right, shown = [], [], []
    for batch in batches(images(prompts, per_tag, 0), EvaluationSettings().batch):
        pictures = generate(policy, batch, EvaluationSettings().seed)
        for image, pixels in zip(batch, pictures, strict=True):
            liked.append(taste(pixels))
            right.append(verdict(pixels, image.prompt.target) or 0.0)
            if image.index < SHOWN:
                shown.append(pixels)
    low, high = wilson(sum(liked), len(liked)) or (0.0, 1.0)
    rate, kept = sum(liked) / len(liked), sum(right) / len(right)
    return {"rate": rate, "low": low, "high": high, "right": kept}, shown


def before_and_after(
    run: Path, taste: Preference, per_tag: int
) -> tuple[dict[str, dict[str, float]], Pixels]:
    """``like_rate`` of the run's start and of its generator; a row of pictures for each."""
    plan = Plan(read_config(run), (START, TRAINED), {}, trained=trained_lora(run))
    policies = build_policies(plan, load_roles(plan))
    measured = {name: like_rate(policies[name], taste, per_tag) for name in plan.rows}
    rows = [pictures for _, pictures in measured.values()]
    figures = {name: found for name, (found, _) in measured.items()}
    return figures, grid([one for row in rows for one in row], len(rows[0]))


def rates(liked: Sequence[bool], window: int = WINDOW) -> list[float]:
    """Share of likes among the last ``window`` clicks, from the first full window on."""
    sums = np.convolve(np.asarray(liked, float), np.ones(window), "valid")
    found: list[float] = (sums / window).tolist()
    return found


def clicks_needed(liked: Sequence[bool], goal: float = GOAL, window: int = WINDOW) -> int | None:
    """Clicks until ``goal`` of the last ``window`` pictures were liked; None: never."""
    return next((window + i for i, rate in enumerate(rates(liked, window)) if rate >= goal), None)


def plot(curves: dict[str, Sequence[bool]], path: Path, window: int = WINDOW) -> None:
    """Like rates over the clicks, one line for each name."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for name, liked in curves.items():
        found = rates(liked, window)
        axes.plot(range(window, window + len(found)), found, linewidth=2, label=name)
    axes.set(xlim=(0, None), ylim=(0, 1), xlabel="clicks", ylabel=f"liked, of the last {window}")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def measure(
    folder: Path, taste: str, clicks: int, seed: int, per_tag: int, overrides: Sequence[str]
) -> dict[str, Any]:
    """One run in ``folder``; figures by name, with the curve as a list of likes."""
    server = Server(folder / "data")
    server.start()
    try:
        click_and_train(folder, server, taste, clicks, [f"run.seed={seed}", *overrides])
        liked = liked_in_order(server, PREFERENCES[taste])
    finally:
        server.stop()
    figures, sheet = before_and_after(folder / "runs" / RUN, PREFERENCES[taste], per_tag)
    Image.fromarray(sheet).save(folder / "before-and-after.png")
    return {
        "taste": taste,
        "seed": seed,
        "clicks": len(liked),
        "needed": clicks_needed(liked),
        "liked": [int(one) for one in liked],
        **figures,
    }


def report(found: dict[str, Any]) -> str:
    """The figures of one run, with the goal."""
    start, trained = found[START], found[TRAINED]
    verdict = "met" if trained["rate"] >= GOAL else "missed"
    needed = "never" if found["needed"] is None else f"after {found['needed']} clicks"
    return (
        f"{found['taste']}, seed {found['seed']}: held-out like rate {start['rate']:.3f} -> "
        f"{trained['rate']:.3f} [{trained['low']:.3f}, {trained['high']:.3f}] after "
        f"{found['clicks']} clicks (goal: >= {GOAL:g}, {verdict}); while training, {GOAL:g} of the "
        f"last {WINDOW} pictures were liked {needed}; pictures that show what was asked for: "
        f"{start['right']:.3f} -> {trained['right']:.3f}"
    )


def main() -> int:
    """Run every taste and seed asked for, print, plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clicks", description=__doc__)
    parser.add_argument("--taste", choices=PREFERENCES, nargs="+", default=[DEFAULT])
    parser.add_argument("--clicks", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images-per-tag", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("runs/clicks"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    curves: dict[str, Sequence[bool]] = {}
    for taste, seed in product(args.taste, range(args.seeds)):
        folder = (args.folder / f"{taste}-{seed}").resolve()
        folder.mkdir(parents=True)
        with terminated_like_ctrl_c():  # which stops server, people and trainer
            found = measure(folder, taste, args.clicks, seed, args.images_per_tag, args.overrides)
        (folder / "clicks.json").write_text(json.dumps(found) + "\n")
        sys.stdout.write(report(found) + "\n")
        curves[f"{taste}, seed {seed}"] = [bool(one) for one in found["liked"]]
    plot(curves, args.folder / "like-rate.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
