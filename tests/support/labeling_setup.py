"""A real reward server in a process of its own, and a real Chromium that labels against it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from shared.client import RewardClient
from shared.images import encode_png, to_b64
from shared.schema import ImageRef, Job, ScoreItem, ScoreRequest
from tests.support.server_setup import free_port

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
READY_S = 150.0
"""A busy machine may take long; nothing waits longer than it must."""
PATIENCE_S = 60.0
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


class Server:
    """`python -m reward_server` on a port of its own; can be killed and started again.

    Only people score here: it runs no scorer processes, and results settle after one second.
    """

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.log = data.with_suffix(".log")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = RewardClient(self.url)
        self._headers: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: list[str] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "reward_server", "serve", "--port", str(self.port)]
        options = ["--data", str(self.data), "--settle", "1", "--scorer-processes", "0"]
        options += self.options
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=log, stderr=log)
        eventually(self._is_ready, READY_S, lambda: f"not ready: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """As a power cut would: SIGKILL, nothing is told."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
        self.client.close()

    def _is_ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def ask(
        self, n: int, *, prefix: str = "picture", seed: int = 0, **fields: Any
    ) -> tuple[str, list[np.ndarray[Any, np.dtype[np.uint8]]]]:
        """Ask people about n pictures named "<prefix> 0", "<prefix> 1", ...; the job's id."""
        pictures = [picture(seed + i) for i in range(n)]
        items = [
            ScoreItem(
                id=str(i),
                prompt=f"{prefix} {i}",
                image=ImageRef(b64=to_b64(encode_png(pixels))),
            )
            for i, pixels in enumerate(pictures)
        ]
        job = self.client.submit(ScoreRequest(reward="human", items=items, **fields)).id
        self._asked.append(job)
        return job, pictures

    def ask_about(self, prompt: str, n: int, **fields: Any) -> str:
        """Ask people about n pictures of one prompt; the job's id."""
        pictures = [ImageRef(b64=to_b64(encode_png(picture(i)))) for i in range(n)]
        items = [ScoreItem(prompt=prompt, image=one) for one in pictures]
        job = self.client.submit(ScoreRequest(reward="human", items=items, **fields)).id
        self._asked.append(job)
        return job

    def labels(self) -> list[dict[str, Any]]:
        """Every label the server has, as exported."""
        answer = httpx.get(f"{self.url}/labels/export", headers=self._headers, trust_env=False)
        return [json.loads(line) for line in answer.raise_for_status().text.splitlines()]

    def command(self, *words: str) -> str:
        """What `python -m reward_server` says to a command on this server's data."""
        line = [sys.executable, "-m", "reward_server", *words, "--data", str(self.data)]
        said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        return said.stdout.strip()

    def lock(self) -> str:
        """From now on people need an invite, and this client the key it gets here."""
        key = self.command("keys", "create", "--name", "tests", "--scope", "admin")
        self.client.close()
        self.client = RewardClient(self.url, api_key=key)
        self._headers = {"Authorization": f"Bearer {key}"}
        return key

    def stats(self) -> dict[str, int]:
        """Progress of the human queue."""
        answer = httpx.get(f"{self.url}/label/stats", trust_env=False).raise_for_status()
        found: dict[str, int] = answer.json()
        return found

    def ask_no_more(self) -> None:
        """Take every question back that is still open, so that the next test starts clean."""
        for job in self._asked:
            self.client.cancel(job)
        self._asked.clear()

    def finished(self, job_id: str, timeout_s: float = PATIENCE_S) -> Job:
        """The job once it is terminal."""
        eventually(
            lambda: self.client.job(job_id, wait=5).terminal,
            timeout_s,
            lambda: str(self.client.job(job_id)),
        )
        return self.client.job(job_id)


def picture(seed: int, side: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A coloured square somewhere on a plain background; another one for every seed."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[:] = rng.integers(0, 256, 3)
    y, x = rng.integers(0, side - 12, 2)
    pixels[y : y + 12, x : x + 12] = 255 - pixels[0, 0]
    pixels[-1, -1] = (seed % 256, seed // 256 % 256, 7)
    return pixels


def eventually(
    holds: Callable[[], bool], timeout_s: float = PATIENCE_S, why: Callable[[], str] = lambda: ""
) -> None:
    """Wait until something holds; fails with `why()` otherwise."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"did not come true within {timeout_s:g} s {why()}")
        time.sleep(0.05)


@contextmanager
def running_server(folder: Path, *options: str) -> Iterator[Server]:
    server = Server(folder / "data", *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; the test is skipped without one, unless the environment insists."""
    if not CHROMIUM.exists():
        if os.environ.get("CI") == "true" or os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(f"{CHROMIUM} is missing; install it with: apt-get install chromium")
        pytest.skip(f"no browser at {CHROMIUM}; apt-get install chromium runs these tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def annotator(
    browser: Browser, server: Server, *, script: str = "", **options: Any
) -> Iterator[Page]:
    """A page in a profile of its own. Script errors and refused resources fail the test.

    ``script`` runs in the page before its own.
    """
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(1000 * PATIENCE_S)
    page = context.new_page()
    if script:
        page.add_init_script(script)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if _is_fault(message) else None)
    page.goto(server.url)
    try:
        yield page
    finally:
        close(context)
    assert errors == []


def _is_fault(message: Any) -> bool:
    """Errors of the page itself; a server that is down on purpose is reported by the network."""
    return message.type == "error" and "Failed to load resource" not in message.text


def close(context: BrowserContext) -> None:
    """Close as a person would: pages hear of it and give their pictures back."""
    for page in context.pages:
        with page.expect_event("close"):
            page.close(run_before_unload=True)
    context.close()


def shown(page: Page) -> str:
    """The prompt on screen, once a picture stands there."""
    page.wait_for_selector("#item:not([hidden]) #stage img")
    return page.inner_text("#prompt")


def number(prompt: str) -> int:
    """Which picture a prompt of `Server.ask` belongs to."""
    found = re.search(r"(\d+)$", prompt)
    assert found is not None, prompt
    return int(found[1])


def done(page: Page) -> int:
    return int(page.inner_text("#done"))


def unsent(page: Page) -> int:
    return int(page.text_content("#sending") or 0)


def on_disk(page: Page) -> int:
    """Clicks in the browser's database: those that a crash of the page cannot take away."""
    count: int = page.evaluate(
        """async () => {
          const settled = (request) => new Promise((resolve, reject) => {
            request.onsuccess = () => resolve(request.result);
            request.onerror = () => reject(request.error);
          });
          let count = 0;
          for (const { name } of await indexedDB.databases()) {
            const database = await settled(indexedDB.open(name));
            count += await settled(database.transaction("labels").objectStore("labels").count());
            database.close();
          }
          return count;
        }"""
    )
    return count


def press_by_number(page: Page) -> int:
    """Like the even pictures, dislike the odd ones, by key; the picture's number."""
    index = number(shown(page))
    press(page, "x" if index % 2 else "a")
    return index


def tap_by_number(page: Page) -> int:
    """Like the even pictures, dislike the odd ones, by touch; the picture's number."""
    index = number(shown(page))
    tap(page, "#dislike" if index % 2 else "#like")
    return index


def assert_exact(server: Server, job: str, n: int) -> None:
    """Every picture has exactly the one vote that was clicked, and the record says the same."""
    result = server.finished(job)
    assert result.rewards == [float(i % 2 == 0) for i in range(n)]
    counts = [(v.like + v.dislike, v.skip) for v in (item.votes for item in result.data) if v]
    assert counts == [(1, 0)] * n
    kept = [one["index"] for one in server.labels() if one["job"] == job and one["counted"]]
    assert sorted(kept) == list(range(n))


def press(page: Page, key: str) -> None:
    """Press a key and wait until the page shows something else."""
    with _changed(page):
        page.keyboard.press(key)


def press_event(page: Page, key: str, code: str, inside: str = "body") -> None:
    """What a keyboard of another layout sends, which no key of a test's own keyboard does."""
    page.dispatch_event(inside, "keydown", {"key": key, "code": code, "bubbles": True})


def click(page: Page, selector: str) -> None:
    """Click and wait until the page shows something else."""
    with _changed(page):
        page.click(selector)


def tap(page: Page, selector: str) -> None:
    """Touch and wait until the page shows something else."""
    with _changed(page):
        page.tap(selector)


@contextmanager
def _changed(page: Page) -> Iterator[None]:
    before = page.inner_text("#prompt")
    yield
    page.wait_for_function(
        "before => document.querySelector('#item').hidden"
        " || document.querySelector('#prompt').innerText !== before",
        arg=before,
    )
