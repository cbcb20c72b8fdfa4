"""How fast the labeling page is: from a key to the next picture painted, and labels per hour.

``python -m benchmarks.ui`` starts a reward server and a headless Chromium on this machine, asks
about 512 px PNG files of some 400 kB, all different, and labels them twice over: at a person's pace
with real key presses, for the time to the next picture; and with the next key pressed the moment a
picture is painted, for the ceiling. A picture counts as painted in the second animation frame after
its decoding: the first one has drawn it by then.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from playwright.sync_api import Page

from shared.images import encode_png, to_b64
from shared.schema import ImageRef, ScoreItem, ScoreRequest
from tests.support.labeling_setup import (
    Server,
    annotator,
    chromium,
    eventually,
    running_server,
    unsent,
)

P95_GOAL_MS: Final = 100.0
PER_HOUR_GOAL: Final = 20_000
SIDE: Final = 512
AT_ONCE: Final = 24
PATIENCE_S: Final = 600.0

WATCH: Final = """
window.painted = {times: [], waiting: null, next: null};
const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
window.addEventListener("keydown", (event) => {
  // A key pressed by a script has no time of its own.
  painted.waiting = event.isTrusted ? event.timeStamp : performance.now();
}, {capture: true});
document.addEventListener("DOMContentLoaded", () => {
  new MutationObserver(async () => {
    const image = document.querySelector("#stage img");
    const since = painted.waiting;
    if (!image || since === null) return;
    painted.waiting = null;
    await image.decode();
    await frame();
    await frame();
    painted.times.push(performance.now() - since);
    painted.next?.();
  }).observe(document.querySelector("#stage"), {childList: true});
});
"""

AS_FAST_AS_IT_GOES: Final = """
async (labels) => {
  const start = performance.now();
  for (let i = 0; i < labels; i += 1) {
    const done = new Promise((resolve) => { painted.next = resolve; });
    const key = i % 3 ? "a" : "x";
    document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    await done;
  }
  return performance.now() - start;
}
"""


def photo(seed: int) -> bytes:
    """A PNG file as heavy as a photograph of its size: soft shapes under a little grain."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(soft.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-6, 7, (SIDE, SIDE, 3), dtype=np.int16)
    return encode_png(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def ask(server: Server, n: int, first: int) -> int:
    """Ask about n photos; their size in bytes."""
    total = 0
    for start in range(first, first + n, AT_ONCE):
        files = [photo(i) for i in range(start, min(start + AT_ONCE, first + n))]
        total += sum(map(len, files))
        asked = [
            ScoreItem(prompt=f"photo {start + i}", image=ImageRef(b64=to_b64(one)))
            for i, one in enumerate(files)
        ]
        server.client.submit(ScoreRequest(reward="human", items=asked))
    return total


def times(page: Page) -> list[float]:
    """Milliseconds from key to paint, of every picture so far."""
    found: list[float] = page.evaluate("painted.times")
    return found


def at_a_persons_pace(page: Page, labels: int, pause_ms: int) -> list[float]:
    """Milliseconds from each real key press to the next picture."""
    page.wait_for_selector("#stage img")
    page.wait_for_timeout(2000)  # as somebody who reads the first prompt
    for i in range(labels):
        page.keyboard.press("a" if i % 3 else "x")
        page.wait_for_timeout(pause_ms)
        painted = "(n) => window.painted.times.length >= n"
        page.wait_for_function(painted, arg=i + 1, timeout=1000 * PATIENCE_S)
    return times(page)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of all values does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def measure(labels: int, pause_ms: int) -> dict[str, Any]:
    """Both measurements, as figures by name."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder)) as server,
        chromium() as browser,
    ):
        size = ask(server, labels + 1, 0)
        with annotator(browser, server, script=WATCH) as page:
            paced = at_a_persons_pace(page, labels, pause_ms)
        ask(server, labels + 1, 100_000)
        with annotator(browser, server, script=WATCH) as page:
            page.wait_for_selector("#stage img")
            page.wait_for_timeout(2000)
            took_ms = float(page.evaluate(AS_FAST_AS_IT_GOES, labels))
            eventually(lambda: unsent(page) == 0, PATIENCE_S)
            fast = times(page)
        counted = sum(one["counted"] for one in server.labels())
    return {
        "labels": labels,
        "pause_ms": pause_ms,
        "png_kb": round(size / (labels + 1) / 1000),
        "p50_ms": round(percentile(paced, 0.5), 1),
        "p95_ms": round(percentile(paced, 0.95), 1),
        "labels_per_hour": round(labels / took_ms * 3_600_000),
        "fast_p95_ms": round(percentile(fast, 0.95), 1),
        "lost": 2 * labels - counted,
    }


def report(found: dict[str, Any]) -> str:
    """The figures, with their goals."""
    swift = "met" if found["p95_ms"] < P95_GOAL_MS else "missed"
    many = "met" if found["labels_per_hour"] >= PER_HOUR_GOAL else "missed"
    return "\n".join(
        (
            f"{found['labels']} labels each, {SIDE} px PNG files of {found['png_kb']} kB",
            f"key to next picture painted: p50 {found['p50_ms']} ms, p95 {found['p95_ms']} ms"
            f" (goal: p95 < {P95_GOAL_MS:g} ms, {swift})",
            f"at most {found['labels_per_hour']:,} labels an hour"
            f" (goal: >= {PER_HOUR_GOAL:,}, {many}; p95 {found['fast_p95_ms']} ms at that pace)",
            f"labels lost: {found['lost']}",
        )
    )


def main() -> int:
    """Measure, print, and keep the figures if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ui", description=__doc__)
    parser.add_argument("--labels", type=int, default=300, help="labels of each measurement")
    parser.add_argument("--pause", type=int, default=300, help="ms between a person's keys")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    began = time.monotonic()
    found = measure(args.labels, args.pause) | {"took_s": 0}
    found["took_s"] = round(time.monotonic() - began)
    sys.stdout.write(report(found) + "\n")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
