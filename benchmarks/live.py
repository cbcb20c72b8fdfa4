"""Two people, a trainer and nothing else: do the pictures become what people like?

``python -m benchmarks.live`` starts a reward server that wants invitations, a trainer that asks it
for likes and dislikes, and two headless Chromiums on the labeling page, each signed in by a link of
its own. They press A where the background is light and X otherwise, looking at the picture on
screen and at nothing else. A third page watches the dashboard. It ends when enough keys were
pressed: with the like rate over the clicks, an account of every key, and the samples before and
after.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks.clicks import plot
from reward_server.simulation.tastes import likes_light
from shared.images import Pixels
from tests.support.labeling_setup import ROOT, Server, chromium, eventually, unsent

NAMES: Final = ("anna", "ben")
RUN: Final = "live"
PROMPTS: Final = ROOT / "trainer/tiny/prompts/composition.train.jsonl"
CONFIG: Final = ROOT / "trainer/configs/tiny-human.toml"
GOAL: Final = 0.2
WINDOW: Final = 300
"""Clicks over which a like rate is taken."""
SHOT_S: Final = 30.0

LOOK: Final = """
() => {
  const image = document.querySelector("#item:not([hidden]) #stage img");
  if (!image || !image.complete || image.naturalWidth === 0) return null;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  return {source: image.src, width: canvas.width, rgba: Array.from(data)};
}
"""
ANOTHER: Final = """
(before) => document.querySelector("#item").hidden
  || document.querySelector("#stage img")?.src !== before
"""


@dataclass(frozen=True)
class Size:
    """How much is clicked, how fast, and on how many different prompts."""

    clicks: int
    rate: float
    prompts: int


def look(page: Page) -> tuple[str, Pixels] | None:
    """The address and the pixels of the picture on screen, if one is."""
    seen = page.evaluate(LOOK)
    if seen is None:
        return None
    rgba = np.array(seen["rgba"], np.uint8).reshape(-1, seen["width"], 4)
    return seen["source"], rgba[..., :3]


def judge(
    server: str, link: str, rate: float, pressed: Synchronized[int], limit: int, stop: Event
) -> None:
    """One annotator in a browser of their own, until ``limit`` keys were pressed by everybody."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.goto(link)
        while not stop.is_set():
            began = time.monotonic()
            found = look(page)
            if found is None:
                time.sleep(0.1)
                continue
            with pressed.get_lock():
                if pressed.value >= limit:
                    break
                pressed.value += 1
            source, pixels = found
            page.keyboard.press("a" if likes_light(pixels) else "x")
            page.wait_for_function(ANOTHER, arg=source)
            time.sleep(max(began + 1 / rate - time.monotonic(), 0.0))
        eventually(lambda: unsent(page) == 0)
        context.close()


def prompts_file(folder: Path, n: int) -> Path:
    """``n`` prompts that leave the background open, so that each comes again and again."""
    rows = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    open_ = [row for row in rows if " on " not in row["prompt"]]
    chosen = random.Random(0).sample(open_, n)
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return path


def train(folder: Path, server: Server, key: str, prompts: Path) -> subprocess.Popen[bytes]:
    """The trainer, in a process of its own."""
    said = f'[{{file = "{prompts}", reward = "human"}}]'
    values = ["run.iterations=100000", "run.time_budget_minutes=600", f"prompts={said}"]
    values += [f"run.folder={folder / 'runs'}", f"run.name={RUN}", f"server.url={server.url}"]
    command = [sys.executable, "-m", "trainer", "train", "--config", str(CONFIG)]
    command += [word for value in values for word in ("--set", value)]
    with (folder / "trainer.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env=os.environ | {"REWARD_API_KEY": key}
        )


def watch(browser: Browser, server: Server, key: str, folder: Path, people: Sequence[Any]) -> None:
    """Pictures of the dashboard, every half minute for as long as somebody clicks."""
    begun = folder / "runs" / RUN / "run.json"
    eventually(begun.exists)
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.goto(f"{server.url}/dashboard?run={json.loads(begun.read_text())['run_id']}")
    page.fill("#key-input", key)
    page.keyboard.press("Enter")
    shot = 0
    while any(one.is_alive() for one in people):
        page.wait_for_timeout(1000 * SHOT_S)
        shot += 1
        page.screenshot(path=folder / f"dashboard-{shot:02}.png", full_page=True)
    context.close()


def measure(folder: Path, size: Size) -> dict[str, Any]:
    """The whole run in ``folder``; figures by name."""
    context = multiprocessing.get_context("spawn")
    pressed, stop = context.Value("i", 0), context.Event()
    server = Server(folder / "data")
    server.start()
    key = server.lock()
    links = [server.command("invite", "--name", one, "--url", server.url) for one in NAMES]
    trainer = train(folder, server, key, prompts_file(folder, size.prompts))
    began = time.monotonic()
    people = [
        context.Process(
            target=judge, args=(server.url, link, size.rate, pressed, size.clicks, stop)
        )
        for link in links
    ]
    try:
        for one in people:
            one.start()
        with chromium() as browser:
            watch(browser, server, key, folder, people)
        took_s = time.monotonic() - began
    finally:
        stop.set()
        trainer.send_signal(signal.SIGINT)
        trainer.wait(120)
        labels = sorted(server.labels(), key=lambda one: one["at"])
        server.stop()
    liked = [one["label"] == "like" for one in labels]
    plot({RUN: liked}, folder / "like-rate.png", WINDOW)
    return {
        "pressed": pressed.value,
        "labels": len(labels),
        "counted": sum(one["counted"] for one in labels),
        "by": {name: sum(one["annotator"] == name for one in labels) for name in NAMES},
        "clicks_per_s": round(len(labels) / took_s, 1),
        "like_rate_first": round(sum(liked[:WINDOW]) / WINDOW, 3),
        "like_rate_last": round(sum(liked[-WINDOW:]) / WINDOW, 3),
    }


def report(found: dict[str, Any]) -> str:
    """The figures, with their goals."""
    gain = found["like_rate_last"] - found["like_rate_first"]
    lost = found["pressed"] - found["counted"]
    return "\n".join(
        (
            f"{found['pressed']} keys pressed by {' and '.join(NAMES)},"
            f" {found['clicks_per_s']} a second (goal: >= 5)",
            f"liked: {found['like_rate_first']:.3f} of the first {WINDOW},"
            f" {found['like_rate_last']:.3f} of the last (goal: +{GOAL:g},"
            f" {'met' if gain >= GOAL else 'missed'}: {gain:+.3f})",
            f"keys that are no counted label: {lost}",
        )
    )


def main() -> int:
    """Run, print, and leave everything in a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--clicks", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=5.0, help="clicks a second of each person")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("runs/live"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    found = measure(args.folder.resolve(), Size(args.clicks, args.rate, args.prompts))
    (args.folder / "live.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(report(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
