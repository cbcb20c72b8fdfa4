"""A real Chromium that looks at the dashboard, and people who click meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from reward_server.simulation.clicker import Clicker, Clicks, Habits
from reward_server.simulation.tastes import likes_light
from shared.client import RewardClient
from shared.images import Pixels
from shared.request import build_request
from shared.schema.labels import SessionRequest
from tests.support.labeling_setup import DESKTOP, PATIENCE_S, Server


@contextmanager
def dashboard(browser: Browser, url: str, run: str | None = None, **options: Any) -> Iterator[Page]:
    """The page of one run. Script errors and anything the policy refuses fail the test."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(1000 * PATIENCE_S)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if _is_fault(m) else None)
    page.goto(f"{url}/dashboard" + (f"?run={run}" if run else ""))
    try:
        yield page
    finally:
        context.close()
    assert errors == []


def _is_fault(message: Any) -> bool:
    return message.type == "error" and "Failed to load resource" not in message.text


def shade(light: bool, seed: int, side: int = 24) -> Pixels:
    """A square on a light or a dark background, another one for every seed."""
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[:] = (236, 233, 224) if light else (38, 42, 54)
    place = np.random.default_rng(seed).integers(2, side - 10, 2)
    pixels[place[0] : place[0] + 8, place[1] : place[1] + 8] = (200, 60 + seed % 120, 70)
    pixels[-1, -1] = (seed % 256, seed // 256 % 256, 9)
    return pixels


def ask_group(
    client: RewardClient, run: str, step: int, lights: Sequence[bool], **fields: Any
) -> str:
    """One group of the same prompt at a step; likely to be liked where it is light."""
    pictures = [shade(light, 100 * step + i) for i, light in enumerate(lights)]
    prompt = fields.pop("prompt", "a red square")
    fields = {"group_id": f"{run}/{step}", "step": step, "run_id": run} | fields
    request = build_request("human", [prompt] * len(lights), pictures, **fields)
    return client.submit(request).id


@contextmanager
def clicking(server: Server, *names: str, noise: float = 0.0) -> Iterator[Clicks]:
    """People who like light backgrounds and click over HTTP for as long as the block runs."""
    tally, stop = Clicks(None), threading.Event()
    habits = Habits(likes_light, noise, 0.0, 0)

    def work(name: str) -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
            Clicker(http, SessionRequest(name=name), habits, tally, stop).run()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it stands."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node.get('failureSummary', '')}"
        for one in found
        for node in one["nodes"]
    ]
