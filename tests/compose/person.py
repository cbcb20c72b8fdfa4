"""A person at the labeling page: a real browser that counts its own clicks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page

from tests.compose.stack import PATIENCE_S, URL, StackError, eventually
from tests.support.labeling_setup import DESKTOP, chromium


class Person:
    """Signed in by invitation; likes every other picture and dislikes the rest."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks: Counter[str] = Counter()

    def sign_in(self, link: str) -> None:
        """Open the page by the link in the logs."""
        self.page.goto(link.replace(link.partition("/?")[0], URL, 1))

    def sees_a_picture(self) -> bool:
        """Whether there is something to judge."""
        return self.page.locator("#item:not([hidden]) #stage img").count() > 0

    def click(self, times: int) -> None:
        """Judge pictures as they are shown; waits for each."""
        for _ in range(times):
            what = "like" if sum(self.clicks.values()) % 2 == 0 else "dislike"
            self._wait_for_a_picture()
            before = self.done
            self.page.click(f"#{what}:enabled")
            self.page.wait_for_function(
                "before => Number(document.querySelector('#done').innerText) > before", arg=before
            )
            self.clicks[what] += 1

    def _wait_for_a_picture(self) -> None:
        """A page left alone for three minutes asks whether anybody is there."""
        picture, resume = "#item:not([hidden]) #stage img", "#resume:not([hidden])"
        self.page.wait_for_selector(f"{picture}, {resume}")
        if self.page.is_visible("#resume"):
            self.page.click("#resume")
            self.page.wait_for_selector(picture)

    @property
    def done(self) -> int:
        """The page's own count of this person's labels."""
        return int(self.page.inner_text("#done"))

    def everything_sent(self) -> None:
        """Wait until the page has nothing left to send."""
        eventually("all clicks sent", lambda: self.page.text_content("#sending") == "0")

    def compare(self, labels: list[dict[str, object]], name: str) -> str:
        """Raises unless the server has kept every click of this person once."""
        kept = Counter(str(row["label"]) for row in labels if row["annotator"] == name)
        if kept != self.clicks:
            raise StackError(f"clicked {dict(self.clicks)}, kept {dict(kept)}")
        return f"clicks kept: {dict(kept)}"


@contextmanager
def person() -> Iterator[Person]:
    """A browser profile of its own, for as long as the block runs."""
    with chromium() as browser, _page(browser) as page:
        yield Person(page)


@contextmanager
def _page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(1000 * PATIENCE_S)
    try:
        yield context.new_page()
    finally:
        context.close()
