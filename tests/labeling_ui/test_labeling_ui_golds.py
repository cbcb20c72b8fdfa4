"""Who judges known pictures otherwise than the requester is asked kindly to pause, and goes on."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Browser, Page

from shared.images import encode_png, to_b64
from tests.support.labeling_setup import Server, annotator, eventually, picture, press, shown

pytestmark = pytest.mark.browser


def add_golds(server: Server, n: int) -> None:
    """Known pictures, all of them to be liked."""
    golds = [
        {
            "prompt": f"known {i}",
            "image": {"b64": to_b64(encode_png(picture(1000 + i)))},
            "answer": "like",
        }
        for i in range(n)
    ]
    answer = httpx.post(f"{server.url}/golds", json={"golds": golds}, trust_env=False)
    answer.raise_for_status()


def judge(page: Page, n: int, key: str) -> None:
    for _ in range(n):
        assert shown(page).startswith("known")
        press(page, key)


def test_a_pause_is_kind_and_ends_when_the_annotator_is_ready(
    server: Server, browser: Browser
) -> None:
    add_golds(server, 12)
    job, _ = server.ask(3, prefix="asked")
    with annotator(browser, server) as page:
        judge(page, 5, "x")
        page.wait_for_selector("#notice-title:has-text('Time for a short break')")
        page.click("#resume")
        judge(page, 5, "a")
        for _ in range(3):
            while shown(page).startswith("known"):
                press(page, "a")
            press(page, "a")
        eventually(lambda: server.client.job(job).counts.pending == 0)
    assert server.finished(job).rewards == [1.0] * 3
    assert all(one["prompt"].startswith("asked") for one in server.labels())


def test_without_more_golds_the_requester_lets_go_on(server: Server, browser: Browser) -> None:
    add_golds(server, 6)
    job, _ = server.ask(2, prefix="asked")
    with annotator(browser, server) as page:
        judge(page, 5, "x")
        page.wait_for_selector("#notice-title:has-text('Thank you so far')")
        assert page.is_hidden("#resume")
        answer = httpx.post(f"{server.url}/annotators/local/continue", trust_env=False)
        answer.raise_for_status()
        shown(page)  # by itself
    server.client.cancel(job)
