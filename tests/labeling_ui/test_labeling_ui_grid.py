"""All pictures of one prompt at once: what is liked is liked and the rest is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.labeling_setup import (
    PHONE,
    Server,
    annotator,
    done,
    eventually,
    running_server,
    unsent,
)

pytestmark = pytest.mark.browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server whose requester prefers the grid."""
    with running_server(tmp_path, "--layout", "grid") as server:
        yield server


def tiles(page: Page, n: int) -> None:
    """Wait for a grid of n pictures."""
    page.wait_for_function("n => document.querySelectorAll('.tile img').length === n", arg=n)


def liked(page: Page) -> list[int]:
    pressed = "(all) => all.map((one) => one.getAttribute('aria-pressed') === 'true')"
    return [i for i, is_on in enumerate(page.locator(".tile").evaluate_all(pressed)) if is_on]


def likes_of(server: Server, job: str) -> int:
    return sum(reward == 1.0 for reward in server.client.job(job).rewards)


def test_keys_alone_judge_a_grid(server: Server, browser: Browser) -> None:
    job = server.ask_about("a red bus", 8)
    with annotator(browser, server) as page:
        tiles(page, 8)
        assert page.inner_text("#prompt") == "a red bus"
        for key in ("Space", "ArrowRight", "ArrowRight", "a", "a", "x", "1"):
            page.keyboard.press(key)
        assert liked(page) == [0, 2, 3, 5]
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Space")  # takes the like of tile 5 back
        assert liked(page) == [0, 2, 3]
        assert server.client.job(job).counts.ok == 0
        page.keyboard.press("Enter")
        eventually(lambda: unsent(page) == 0 and done(page) == 8)
    assert sorted(server.finished(job).rewards, key=str) == [0.0] * 5 + [1.0] * 3
    votes = [item.votes for item in server.client.job(job).data]
    assert all(v is not None and v.like + v.dislike == 1 for v in votes)


def test_taps_alone_judge_a_grid_on_a_phone(server: Server, browser: Browser) -> None:
    jobs = [server.ask_about(prompt, 6) for prompt in ("a cup", "a hat")]
    with annotator(browser, server, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        for _ in jobs:
            tiles(page, 6)
            prompt = page.inner_text("#prompt")
            for index in (0, 3, 3, 5):
                page.locator(".tile").nth(index).tap()
            assert liked(page) == [0, 5]
            box = page.locator(".tile").first.bounding_box()
            assert box is not None and min(box["width"], box["height"]) >= 44
            page.tap("#submit")
            page.wait_for_function(
                "before => document.querySelector('#item').hidden"
                " || document.querySelector('#prompt').innerText !== before",
                arg=prompt,
            )
    for job in jobs:
        server.finished(job)
        assert likes_of(server, job) == 2


def test_undo_brings_the_whole_grid_back_as_it_was(server: Server, browser: Browser) -> None:
    job = server.ask_about("a red bus", 5)
    with annotator(browser, server) as page:
        tiles(page, 5)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        eventually(lambda: likes_of(server, job) == 1)
        page.keyboard.press("Backspace")
        tiles(page, 5)
        assert liked(page) == [1]
        eventually(lambda: server.client.job(job).counts.pending == 5)
        page.keyboard.press("End")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        eventually(lambda: done(page) == 5)
    server.finished(job)
    assert likes_of(server, job) == 2


def test_one_picture_of_a_grid_can_be_flagged_and_all_can_be_skipped(
    server: Server, browser: Browser
) -> None:
    first = server.ask_about("a red bus", 3, max_skips=1)
    second = server.ask_about("a blue bus", 3, max_skips=1)
    with annotator(browser, server) as page:
        tiles(page, 3)
        page.keyboard.press("f")
        page.keyboard.press("2")
        page.wait_for_selector(".tile[data-label='flag']")
        page.keyboard.press("Enter")
        page.wait_for_selector("#prompt:has-text('a blue bus')")
        page.click("#skip-all")
    assert sorted(server.finished(first).rewards, key=str) == [0.0, 0.0, None]
    assert server.finished(second).rewards == [None] * 3
    flagged = [one["reason"] for one in server.labels() if one["label"] == "flag"]
    assert flagged == ["unsafe"]


def test_whoever_labels_may_switch_and_the_browser_remembers(
    server: Server, browser: Browser
) -> None:
    job = server.ask_about("a red bus", 4)
    with annotator(browser, server) as page:
        tiles(page, 4)
        page.click("#layout")
        page.wait_for_selector("#stage img")
        assert page.is_hidden("#grid")
        page.reload()
        page.wait_for_selector("#stage img")
        page.keyboard.press("a")
        eventually(lambda: done(page) == 1)
        page.click("#layout")
        tiles(page, 3)
        page.keyboard.press("Enter")
        eventually(lambda: done(page) == 4)
    server.finished(job)
    assert likes_of(server, job) == 1
