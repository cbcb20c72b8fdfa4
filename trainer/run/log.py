"""What a run tells: JSON lines for programs, TensorBoard for curves, a live view for people.

The JSON lines are the record (the report reads them); TensorBoard and the view are shown the same
numbers.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image
from rich.console import Console
from rich.live import Live
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from trainer.rewards.inflight import Pixels

FILE_NAME = "metrics.jsonl"
THUMBNAIL = 128  # px
HEARTBEAT = "heartbeat"  # touched as long as training goes on, or waits for scores
SMOOTHING = 0.9
PLAIN_EVERY_S = 10.0  # between lines where there is no terminal
SHOWN = {
    "reward/mean": "reward",
    "heldout/score": "held-out score",
    "surrogate/ranking_accuracy": "surrogate ranking accuracy",
    "force/ratio": "|rho g_r| / |g_kl|",
    "force/cosine": "cos(g_r, g_kl)",
    "inflight/groups": "groups in flight",
}
RAW = ("heldout/score", "inflight/groups")  # shown as they are, not smoothed


def _thumbnail(image: Pixels) -> Pixels:
    """The image with sides of at most THUMBNAIL: a run keeps hundreds of grids."""
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(small)


def grid(pixels: list[Pixels], columns: int) -> Pixels:
    """Small versions of images of one size as one image, row by row, with a one-pixel gap."""
    pixels = [_thumbnail(image) for image in pixels]
    height, width, _ = pixels[0].shape
    rows = math.ceil(len(pixels) / columns)
    shape = (rows * (height + 1) - 1, columns * (width + 1) - 1, 3)
    sheet: Pixels = np.full(shape, 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All rows of a run's record, in order; each has "iteration" and "clock_s"."""
    file = folder / FILE_NAME
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


class RunLog:
    """Writes a run's record and shows it. Use as a context manager."""

    def __init__(
        self, folder: Path, first: int, last: int, *, live: bool, console: Console
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._last = last
        self._console = console
        self._smooth: dict[str, float] = {}
        self._started = self._printed = time.monotonic()
        self._first = first
        self._heartbeat = folder / HEARTBEAT
        self._record_from(folder / FILE_NAME, first)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first or None)
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._is_live = live and console.is_terminal

    def _record_from(self, file: Path, first: int) -> None:
        """Drops rows of iterations that a resumed run is going to repeat."""
        kept = [row for row in read_metrics(file.parent) if row["iteration"] < first]
        file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = file.open("a", encoding="utf-8")

    def write(self, iteration: int, clock_s: float, eta_s: float, row: dict[str, float]) -> None:
        """Adds one iteration; a number that is not finite is left out of the record."""
        finite = {k: v for k, v in row.items() if math.isfinite(v)}
        self._file.write(json.dumps({"iteration": iteration, "clock_s": clock_s, **finite}) + "\n")
        self._file.flush()
        self._heartbeat.touch()
        for name, value in finite.items():
            self._board.add_scalar(name, value, iteration)
            keep = 0.0 if name in RAW else SMOOTHING
            self._smooth[name] = keep * self._smooth.get(name, value) + (1 - keep) * value
        self._show(iteration, eta_s)

    def images(self, tag: str, pixels: list[Pixels], columns: int, iteration: int) -> None:
        """A grid of images, on TensorBoard."""
        self._board.add_image(tag, grid(pixels, columns), iteration, dataformats="HWC")

    def say(self, text: str) -> None:
        """One line for the person watching."""
        self._console.print(text, markup=False, highlight=False)

    def waiting(self, iteration: int, unscored: int) -> None:
        """Shows that training waits for scores."""
        self._heartbeat.touch()
        if self._is_live:
            self._live.update(self._table(iteration, math.nan, f"waiting, {unscored} groups"))
            self._live.refresh()

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_live:
            self._live.stop()
        self._board.close()
        self._file.close()

    def _show(self, iteration: int, eta_s: float) -> None:
        if self._is_live:
            self._live.update(self._table(iteration, eta_s, "training"))
            self._live.refresh()
        elif time.monotonic() - self._printed >= PLAIN_EVERY_S or iteration + 1 == self._last:
            self._printed = time.monotonic()
            values = (f"{SHOWN[k]} {v:.3f}" for k, v in self._smooth.items() if k in SHOWN)
            eta = "" if math.isnan(eta_s) else f", {eta_s / 60:.1f} min left"
            done = min(iteration + 1, self._last)  # the last row comes after the last iteration
            self.say(f"iteration {done}/{self._last}: {', '.join(values)}{eta}")

    def _table(self, iteration: int, eta_s: float, state: str) -> Table:
        table = Table(title=f"TDM-R1: {state}", title_justify="left", show_header=False)
        table.add_row("iteration", f"{min(iteration + 1, self._last)} of {self._last}")
        for name, label in SHOWN.items():
            value = self._smooth.get(name)
            table.add_row(label, "-" if value is None else f"{value:.3f}".rstrip("0").rstrip("."))
        table.add_row("time left", "-" if math.isnan(eta_s) else f"{eta_s / 60:.1f} min")
        return table
