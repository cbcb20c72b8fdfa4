"""Sign-ins end without a click being lost, and clicks of one person never become another's."""

from __future__ import annotations

from collections import Counter

import pytest
from playwright.sync_api import Browser, Page

from reward_server.store import Store
from reward_server.store.tables import session
from tests.support.labeling_setup import (
    Server,
    annotator,
    eventually,
    press_by_number,
    shown,
    unsent,
)

pytestmark = pytest.mark.browser


def invite(server: Server, name: str) -> str:
    return server.command("invite", "--name", name, "--url", server.url)


def end_sessions(server: Server) -> None:
    """As time would."""
    store = Store(f"sqlite:///{server.data / 'queue.sqlite3'}")
    store.write(lambda connection: connection.execute(session.delete()))
    store.close()


def enter(page: Page, link: str) -> None:
    page.goto(link)
    shown(page)


def test_clicks_outlive_the_sign_in_and_are_sent_after_the_next_one(
    server: Server, browser: Browser
) -> None:
    n = 8
    job, _ = server.ask(n, prefix="signed out")
    with annotator(browser, server) as page:
        server.lock()
        link = invite(server, "anna")
        enter(page, link)
        for _ in range(2):
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)
        end_sessions(server)
        press_by_number(page)
        page.wait_for_selector("#notice-title:has-text('You are signed out')")
        page.wait_for_selector("#notice-text:has-text('1 click is kept here until then')")
        other = page.context.new_page()
        other.goto(link)
        other.close()
        eventually(lambda: unsent(page) == 0)
        for _ in range(n - 3):  # without a reload
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)
    counts = server.client.job(job).counts
    assert (counts.ok, counts.pending) == (n, 0)


def test_clicks_of_one_person_wait_for_that_person(server: Server, browser: Browser) -> None:
    server.ask(24, prefix="shared browser")
    with annotator(browser, server) as page:
        server.lock()
        anna, ben = invite(server, "anna"), invite(server, "ben")
        enter(page, anna)
        page.context.route("**/label/submit*", lambda route: route.abort("connectionreset"))
        for _ in range(2):
            press_by_number(page)
        eventually(lambda: unsent(page) == 2)
        end_sessions(server)
        enter(page, ben)  # the page of anna ends, signed out, with two clicks unsent
        page.context.unroute("**/label/submit*")
        for _ in range(3):
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)
        assert Counter(one["annotator"] for one in server.labels()) == {"ben": 3}
        enter(page, anna)
        eventually(lambda: unsent(page) == 0)
    counted = Counter(one["annotator"] for one in server.labels() if one["counted"])
    assert counted == {"anna": 2, "ben": 3}
