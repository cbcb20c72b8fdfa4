"""The page is honest while it waits, safe by policy, and fits a phone, a desk and the dark."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Browser

from tests.support.labeling_setup import (
    DESKTOP,
    PHONE,
    Server,
    annotator,
    eventually,
    press,
    shown,
)

pytestmark = pytest.mark.browser

LONG = "a photograph of an extraordinarily long-winded description, " * 12


def test_an_empty_queue_is_called_empty_and_new_pictures_come_by_themselves(
    server: Server, browser: Browser
) -> None:
    with annotator(browser, server) as page:
        page.wait_for_selector("#notice-title:has-text('No pictures are waiting')")
        assert page.is_disabled("#like")
        job, _ = server.ask(1, prefix="late")
        assert shown(page) == "late 0"
        assert page.is_enabled("#like")
        press(page, "a")
    assert server.finished(job).rewards == [1.0]


def test_pictures_held_by_others_are_not_called_done(server: Server, browser: Browser) -> None:
    job, _ = server.ask(2, prefix="elsewhere")
    with httpx.Client(base_url=server.url, trust_env=False) as other:
        other.post("/label/session", json={"name": "other"}).raise_for_status()
        taken = other.post("/label/claim", json={"n": 2}).raise_for_status().json()["items"]
        with annotator(browser, server) as page:
            page.wait_for_selector("#notice-text:has-text('2 pictures are being judged by others')")
            leases = [{k: item[k] for k in ("assignment", "token")} for item in taken]
            other.post("/label/release", json={"leases": leases}).raise_for_status()
            for _ in range(2):
                shown(page)
                press(page, "a")
    assert server.finished(job).rewards == [1.0, 1.0]


def test_pictures_that_wait_for_others_are_told_apart(server: Server, browser: Browser) -> None:
    job, _ = server.ask(2, prefix="second opinion", votes=2)
    with annotator(browser, server) as page:
        for _ in range(2):
            shown(page)
            press(page, "a")
        page.wait_for_selector("#notice-text:has-text('2 pictures you have judged wait for the')")
        assert page.inner_text("#notice-title") == "Your part is done for now"
    server.client.cancel(job)


def test_an_absent_annotator_blocks_nobody(server: Server, browser: Browser) -> None:
    job, _ = server.ask(2, prefix="absent")
    with annotator(browser, server) as page:
        page.clock.install()
        page.reload()
        shown(page)
        page.clock.fast_forward(200_000)
        page.wait_for_selector("#notice-title:has-text('Paused')")
        eventually(lambda: server.stats()["leased"] == 0)
        page.keyboard.press("a")  # wakes the page, and judges nothing
        shown(page)
        assert server.client.job(job).counts.ok == 0
        for _ in range(2):
            shown(page)
            press(page, "a")
    assert server.finished(job).rewards == [1.0, 1.0]


def test_the_policy_allows_nothing_inline_and_nothing_foreign(server: Server) -> None:
    policy = httpx.get(server.url, trust_env=False).headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy or "default-src 'self'" in policy


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_fits_and_can_be_hit(
    server: Server, browser: Browser, size: dict[str, int], scheme: str
) -> None:
    job, _ = server.ask(1, prefix=f"{scheme} {size['width']} {LONG}")
    with annotator(browser, server, viewport=size, color_scheme=scheme) as page:
        shown(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate("document.documentElement.scrollHeight") <= size["height"]
        for button in page.query_selector_all("nav:not([hidden]) button, .bar button, #pixels"):
            box = button.bounding_box()
            assert box is not None and box["width"] >= 44 and box["height"] >= 44
        drawn = page.locator("#stage img").bounding_box()
        assert drawn is not None and drawn["width"] >= 5 * 32  # a 32 px picture, enlarged
        assert drawn["width"] % 32 == 0  # to equal squares
        rendering = "getComputedStyle(document.querySelector('#stage img')).imageRendering"
        assert page.evaluate(rendering) == "pixelated"
        page_color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = int(page_color.removeprefix("rgb(").split(",")[0]) < 80
        assert is_dark == (scheme == "dark")
    server.client.cancel(job)


def test_help_lists_every_key_and_swallows_them_meanwhile(server: Server, browser: Browser) -> None:
    job, _ = server.ask(1, prefix="help")
    with annotator(browser, server) as page:
        shown(page)
        page.keyboard.press("h")
        page.wait_for_selector("#help[open]")
        assert page.locator("#help-keys tr").count() == 7
        page.keyboard.press("a")
        page.keyboard.press("Escape")
        page.wait_for_selector("#help", state="hidden")
        assert shown(page) == "help 0"
        assert server.client.job(job).counts.ok == 0
    server.client.cancel(job)


DENY_STORAGE = """
for (const name of ["indexedDB", "localStorage"]) {
  const get = () => { throw new DOMException("denied", "SecurityError"); };
  Object.defineProperty(window, name, { get });
}
"""


def test_a_browser_that_keeps_no_data_works_and_is_told_so(
    server: Server, browser: Browser
) -> None:
    job, _ = server.ask(2, prefix="private")
    with annotator(browser, server) as page:
        shown(page)
        page.add_init_script(DENY_STORAGE)
        page.reload()
        page.wait_for_selector("#banner:has-text('would be lost by a reload')")
        for _ in range(2):
            shown(page)
            press(page, "a")
    assert server.finished(job).rewards == [1.0, 1.0]


def test_the_next_prompt_is_announced_to_a_screen_reader(server: Server, browser: Browser) -> None:
    job, _ = server.ask(2, prefix="spoken")
    with annotator(browser, server) as page:
        shown(page)
        press(page, "a")
        prompt = shown(page)
        assert page.text_content("#live") == f"Liked. 1 done. Next: {prompt}"
        assert page.get_attribute("#stage img", "alt") == f"Picture made for: {prompt}"
    server.client.cancel(job)
