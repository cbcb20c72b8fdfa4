"""On a phone a swipe judges and two fingers enlarge; an enlarged picture is only looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, CDPSession, Page

from tests.support.labeling_setup import PHONE, Server, annotator, eventually, shown

pytestmark = pytest.mark.browser

Points = list[tuple[float, float]]


@contextmanager
def phone(browser: Browser, server: Server) -> Iterator[Page]:
    with annotator(browser, server, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        yield page


def touch(session: CDPSession, path: list[Points]) -> None:
    """Fingers down at the first points, along the others, up at the last."""
    for at, points in enumerate(path):
        dots = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        kind = "touchMove" if at else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": dots})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def swipe(page: Page, dx: float, dy: float = 0.0) -> None:
    x, y = center(page)
    steps = [[(x + dx * k / 6, y + dy * k / 6)] for k in range(7)]
    touch(page.context.new_cdp_session(page), steps)


def center(page: Page) -> tuple[float, float]:
    box = page.locator("#stage").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def width(page: Page) -> float:
    box: Any = page.locator("#stage img").bounding_box()
    return float(box["width"])


def changed(page: Page, before: str) -> None:
    page.wait_for_function(
        "before => document.querySelector('#item').hidden"
        " || document.querySelector('#prompt').innerText !== before",
        arg=before,
    )


def test_a_swipe_to_the_right_likes_and_to_the_left_dislikes(
    server: Server, browser: Browser
) -> None:
    job, _ = server.ask(2, prefix="swiped")
    liked = ""
    with phone(browser, server) as page:
        for dx in (140.0, -140.0):
            prompt = shown(page)
            liked = liked or prompt
            swipe(page, dx)
            changed(page, prompt)
    rewards = server.finished(job).rewards
    assert rewards[int(liked.split()[1])] == 1.0 and sum(filter(None, rewards)) == 1.0


def test_what_a_swipe_means_can_be_turned_round(server: Server, browser: Browser) -> None:
    job, _ = server.ask(1, prefix="turned")
    with phone(browser, server) as page:
        shown(page)
        page.tap("#help-open")
        page.select_option("#swipe", "dislike")
        page.tap("#help header button")
        page.reload()
        prompt = shown(page)
        swipe(page, 140.0)
        changed(page, prompt)
    assert server.finished(job).rewards == [0.0]


def test_a_short_or_steep_drag_judges_nothing(server: Server, browser: Browser) -> None:
    job, _ = server.ask(1, prefix="unsure")
    with phone(browser, server) as page:
        prompt = shown(page)
        swipe(page, 30.0)
        swipe(page, 90.0, 120.0)
        assert shown(page) == prompt
        assert page.evaluate("document.querySelector('#stage img').style.transform") == ""
    assert server.client.job(job).counts.ok == 0
    server.client.cancel(job)


def test_two_fingers_enlarge_and_then_a_drag_looks_around(server: Server, browser: Browser) -> None:
    job, _ = server.ask(2, prefix="pinched")
    with phone(browser, server) as page:
        prompt = shown(page)
        before = width(page)
        x, y = center(page)
        session = page.context.new_cdp_session(page)
        touch(session, [[(x - 20 - 12 * k, y), (x + 20 + 12 * k, y)] for k in range(10)])
        eventually(lambda: width(page) > 2 * before)
        swipe(page, 140.0)
        assert shown(page) == prompt
        page.click("#like")  # a tap right after a swipe may count as the end of its momentum
        changed(page, prompt)
        shown(page)
        assert width(page) == before  # the next picture is seen whole
    server.client.cancel(job)


def test_pixels_can_be_seen_one_to_one(server: Server, browser: Browser) -> None:
    job, _ = server.ask(1, prefix="pixels")
    with annotator(browser, server) as page:
        shown(page)
        assert width(page) > 32
        page.keyboard.press("p")
        assert width(page) == 32  # a 32 px picture on a screen with one pixel per pixel
        assert page.get_attribute("#pixels", "aria-pressed") == "true"
        page.click("#pixels")
        assert width(page) > 32
    server.client.cancel(job)
