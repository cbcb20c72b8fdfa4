"""Nobody is shut out: every page and state passes axe-core's rules, light and dark, desk and phone;
motion stops for whom it disturbs; the keyboard's place is always seen.
"""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.support.labeling_setup import DESKTOP, PHONE, Server, annotator, shown

pytestmark = pytest.mark.browser

OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def faults(page: Page) -> list[dict[str, Any]]:
    """What axe-core objects to: rule and elements."""
    found = Axe().run(page, options=OPTIONS).response["violations"]
    return [
        {"rule": one["id"], "where": [node["html"][:120] for node in one["nodes"]]} for one in found
    ]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state_is_accessible(
    server: Server, browser: Browser, size: dict[str, int], scheme: str
) -> None:
    with annotator(browser, server, viewport=size, color_scheme=scheme) as page:
        page.wait_for_selector("#notice-title:has-text('No pictures')")
        assert faults(page) == []
        job, _ = server.ask(3, prefix="seen")
        shown(page)
        assert faults(page) == []
        page.keyboard.press("h")
        page.wait_for_selector("#help[open]")
        assert faults(page) == []
        page.keyboard.press("Escape")
        page.keyboard.press("f")
        page.wait_for_selector("#flag-why[open]")
        assert faults(page) == []
        page.keyboard.press("Escape")
        server.client.cancel(job)
        page.click("#layout")
        job = server.ask_about("a red bus", 6)
        page.wait_for_selector(".tile img")
        page.keyboard.press("Space")
        assert faults(page) == []
        server.client.cancel(job)


def test_motion_stops_and_the_focus_shows(server: Server, browser: Browser) -> None:
    job, _ = server.ask(2, prefix="calm")
    with annotator(browser, server, reduced_motion="reduce") as page:
        shown(page)
        page.keyboard.press("a")
        shown(page)
        assert page.evaluate("getComputedStyle(document.querySelector('#like')).animationName") == (
            "none"
        )
        for _ in range(6):
            page.keyboard.press("Tab")
            outline = "getComputedStyle(document.activeElement).outlineWidth"
            assert page.evaluate(outline) == "3px"
    server.client.cancel(job)
