"""Two hundred pictures by key and by touch, through a killed server, in two tabs, over a network
that goes away, and in four browsers at once: no label is lost and none counts twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest
from playwright.sync_api import Browser, Page

from tests.support.labeling_setup import (
    PHONE,
    Server,
    annotator,
    assert_exact,
    eventually,
    press_by_number,
    tap_by_number,
    unsent,
)

pytestmark = pytest.mark.browser

N = 200
PATIENCE_S = 600.0  # then nothing will come any more
Judge = Callable[[Page], int]


def judge_all(
    pages: list[Page], by: Judge, at: dict[int, Callable[[], None]] | None = None
) -> None:
    """Judge N pictures, page after page; before the k-th click ``at[k]`` happens."""
    clicks, given_up = 0, time.monotonic() + PATIENCE_S
    for page in pages:
        page.wait_for_selector("#item:not([hidden])")
    while clicks < N:
        assert time.monotonic() < given_up, f"no picture comes after {clicks} of {N}"
        for page in pages:
            if clicks == N or (len(pages) > 1 and not page.is_visible("#item")):
                continue
            if at and clicks in at:
                at.pop(clicks)()
            by(page)
            clicks += 1
    for page in pages:
        eventually(partial(_all_sent, page))


def _all_sent(page: Page) -> bool:
    return unsent(page) == 0


@pytest.mark.parametrize("way", ["keyboard", "touch"])
def test_two_hundred_pictures(server: Server, browser: Browser, way: str) -> None:
    job, _ = server.ask(N)
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    with annotator(browser, server, **(phone if way == "touch" else {})) as page:
        judge_all([page], tap_by_number if way == "touch" else press_by_number)
    assert_exact(server, job, N)


def test_a_server_killed_in_the_middle(server: Server, browser: Browser) -> None:
    job, _ = server.ask(N)
    with annotator(browser, server) as page:
        judge_all(
            [page],
            press_by_number,
            {60: server.kill, 65: server.start, 130: server.kill, 133: server.start},
        )
    assert_exact(server, job, N)


def test_two_tabs_share_the_work(server: Server, browser: Browser) -> None:
    job, _ = server.ask(N)
    with annotator(browser, server) as page:
        other = page.context.new_page()
        other.goto(server.url)
        judge_all([page, other], press_by_number)
    assert_exact(server, job, N)


def test_a_network_that_goes_away(server: Server, browser: Browser) -> None:
    job, _ = server.ask(N)
    with annotator(browser, server) as page:
        cut, back = (
            (lambda: page.context.set_offline(True)),
            (lambda: page.context.set_offline(False)),
        )
        judge_all([page], press_by_number, {50: cut, 57: back, 120: cut, 126: back})
    assert_exact(server, job, N)


def test_four_browsers_at_once(server: Server, browser: Browser) -> None:
    job, _ = server.ask(N)
    with ExitStack() as stack:
        pages = [stack.enter_context(annotator(browser, server)) for _ in range(4)]
        for k, page in enumerate(pages):  # four people, not one in four browsers
            page.request.post(f"{server.url}/label/session", data={"name": f"person {k}"})
            page.reload()
        judge_all(pages, press_by_number)
    assert_exact(server, job, N)
    judged = {one["annotator"] for one in server.labels()}
    assert judged == {f"person {k}" for k in range(4)}
