"""Keys are the annotator's own: they can be changed and stay so; every action keeps one. A flag
asks why.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page

from tests.support.labeling_setup import Server, annotator, eventually, press, shown

pytestmark = pytest.mark.browser


def change(page: Page, action: str, key: str) -> str:
    """Give an action another key in the help panel; what the panel says."""
    page.click(f"[data-change='{action}']")
    page.wait_for_selector("#keys-said:has-text('Press the new key')")
    page.keyboard.press(key)
    return page.inner_text("#keys-said")


def test_a_changed_key_works_at_once_and_after_a_reload(server: Server, browser: Browser) -> None:
    job, _ = server.ask(3, prefix="own keys")
    with annotator(browser, server) as page:
        shown(page)
        page.keyboard.press("h")
        assert change(page, "like", "j") == "Like is J now."
        page.keyboard.press("Escape")
        assert page.inner_text("#like kbd") == "J"
        press(page, "j")
        page.keyboard.press("a")  # not a key any more
        page.reload()
        shown(page)
        press(page, "j")
        page.keyboard.press("h")
        page.click("#keys-reset")
        page.keyboard.press("Escape")
        press(page, "a")
    assert server.finished(job).rewards == [1.0] * 3


def test_no_action_is_left_without_a_key(server: Server, browser: Browser) -> None:
    with annotator(browser, server) as page:
        page.wait_for_selector("#notice-title:has-text('No pictures')")
        page.keyboard.press("h")
        assert "is the only key for Flag" in change(page, "like", "f")
        page.keyboard.press("Escape")  # leaves it as it was, and the panel open
        assert page.is_visible("#help")
        assert "needed by the browser" in change(page, "like", "F5")
        page.keyboard.press("Escape")
        assert change(page, "like", "0") == "Like is 0 now."
        assert page.inner_text("#help-keys tr:nth-child(2) td").split() == ["X", "←"]


@pytest.mark.parametrize("by_key", [True, False], ids=["keyboard", "buttons"])
def test_a_flag_asks_why_and_is_no_dislike(server: Server, browser: Browser, by_key: bool) -> None:
    job, _ = server.ask(2, prefix="flagged", max_skips=1)
    with annotator(browser, server) as page:
        for key, reason in (("1", "broken_image"), ("3", "cannot_judge")):
            prompt = shown(page)
            if by_key:
                page.keyboard.press("f")
                page.wait_for_selector("#flag-why[open]")
                page.keyboard.press("Escape")  # thought better of it
                page.wait_for_selector("#flag-why", state="hidden")
                assert shown(page) == prompt
                page.keyboard.press("f")
                page.keyboard.press(key)
            else:
                page.click("#flag")
                page.click(f"#flag-why button[value='{reason}']")
            page.wait_for_function(
                "before => document.querySelector('#item').hidden"
                " || document.querySelector('#prompt').innerText !== before",
                arg=prompt,
            )
        eventually(lambda: len(server.labels()) == 2)
    assert server.finished(job).rewards == [None, None]
    assert [(one["label"], one["reason"]) for one in server.labels()] == [
        ("flag", "broken_image"),
        ("flag", "cannot_judge"),
    ]


def test_the_time_to_a_judgement_is_kept(server: Server, browser: Browser) -> None:
    server.ask(1, prefix="timed")
    with annotator(browser, server) as page:
        shown(page)
        page.wait_for_timeout(400)
        press(page, "a")
        eventually(lambda: len(server.labels()) == 1)
    (record,) = server.labels()
    assert record["rt_ms"] >= 400 and record["too_fast"] is False
