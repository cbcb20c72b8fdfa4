"""No click is lost and none counts twice: through a reload, a killed server, a dead network."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Error, Route

from tests.support.labeling_setup import (
    Server,
    annotator,
    assert_exact,
    done,
    eventually,
    number,
    on_disk,
    press_by_number,
    shown,
    unsent,
)

pytestmark = pytest.mark.browser


def cut(route: Route) -> None:
    route.abort("internetdisconnected")


def test_clicks_not_yet_sent_survive_a_crash_of_the_browsers_page(
    server: Server, browser: Browser
) -> None:
    n = 8
    job, _ = server.ask(n, prefix="crash")
    with annotator(browser, server) as page:
        shown(page)
        page.context.route("**/label/submit*", cut)
        before = done(page)
        for _ in range(5):
            press_by_number(page)
        eventually(lambda: on_disk(page) == 5)
        with pytest.raises(Error, match="crash"):
            page.goto("chrome://crash")
        again = page.context.new_page()
        page.close()
        again.goto(server.url)
        eventually(lambda: unsent(again) == 5)
        assert done(again) == before + 5
        assert server.client.job(job).counts.ok == 0
        again.context.unroute("**/label/submit*")
        eventually(lambda: unsent(again) == 0)
        assert done(again) == before + 5
        for _ in range(3):  # the crashed page held these
            press_by_number(again)
        eventually(lambda: unsent(again) == 0)
    assert_exact(server, job, n)


def test_clicks_not_yet_sent_leave_with_the_page(server: Server, browser: Browser) -> None:
    job, _ = server.ask(6, prefix="leaving")
    with annotator(browser, server) as page:
        shown(page)
        page.context.route("**/label/submit*", cut)  # does not hold what is sent on leaving
        for _ in range(4):
            press_by_number(page)
        eventually(lambda: unsent(page) == 4)
        page.reload()
        eventually(lambda: server.client.job(job).counts.ok == 4)
        page.context.unroute("**/label/submit*")
        for _ in range(2):
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)  # this time nothing is left to the page's end
    assert_exact(server, job, 6)


def test_an_answer_lost_on_the_way_does_not_double_the_click(
    server: Server, browser: Browser
) -> None:
    job, _ = server.ask(4, prefix="unheard")
    swallowed: list[int] = []

    def swallow(route: Route) -> None:
        """The server hears the click, the page never hears the server."""
        if len(swallowed) < 2:
            swallowed.append(route.fetch().status)
            route.abort("connectionreset")
        else:
            route.continue_()

    with annotator(browser, server) as page:
        shown(page)
        before = done(page)
        page.context.route("**/label/submit*", swallow)
        for _ in range(4):
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)
        assert done(page) == before + 4
    assert swallowed == [200, 200]
    assert_exact(server, job, 4)


def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(
    server: Server, browser: Browser
) -> None:
    n = 24
    job, _ = server.ask(n, prefix="killed")
    with annotator(browser, server) as page:
        shown(page)
        before = done(page)
        for _ in range(6):
            press_by_number(page)
        server.kill()
        for _ in range(5):  # pictures that were loaded ahead
            press_by_number(page)
        page.wait_for_selector("#banner:has-text('kept and will be sent')")
        assert unsent(page) >= 5
        server.start()
        for _ in range(n - 11):
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)
        assert page.is_hidden("#banner")
        assert done(page) == before + n
    assert_exact(server, job, n)


def test_a_server_killed_again_and_again_while_somebody_clicks_fast(
    server: Server, browser: Browser
) -> None:
    n = 30
    job, _ = server.ask(n, prefix="fast")
    with annotator(browser, server) as page:
        for at in range(n):
            if at in (5, 18):
                server.kill()
                server.start()
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)
    assert_exact(server, job, n)


def test_undo_of_a_click_that_never_left_needs_no_server(server: Server, browser: Browser) -> None:
    job, _ = server.ask(3, prefix="withdrawn")
    with annotator(browser, server) as page:
        shown(page)
        server.kill()
        press_by_number(page)  # this one is being tried
        second = number(shown(page))
        page.keyboard.press("Space")  # this one waits behind it
        eventually(lambda: unsent(page) == 2)
        page.keyboard.press("Backspace")
        eventually(lambda: unsent(page) == 1)
        eventually(lambda: number(shown(page)) == second)
        server.start()
        press_by_number(page)
        press_by_number(page)
    assert_exact(server, job, 3)


@pytest.mark.parametrize("closed", ["the first", "the last"])
def test_clicks_of_a_closed_tab_are_sent_by_the_tab_that_lives(
    server: Server, browser: Browser, closed: str
) -> None:
    job, _ = server.ask(20, prefix="closed tab")  # the first tab takes 16, the last one the others
    with annotator(browser, server) as first:
        shown(first)
        last = first.context.new_page()
        last.goto(server.url)
        shown(last)
        leaving, living = (first, last) if closed == "the first" else (last, first)
        for page in (leaving, living):
            page.wait_for_load_state("networkidle")  # what is clicked below is loaded by now
        server.kill()
        for _ in range(4):
            press_by_number(leaving)
        eventually(lambda: on_disk(leaving) == 4)
        leaving.close()  # tells the server, which is away
        server.start()
        eventually(lambda: living.is_visible("body") and server.client.job(job).counts.ok == 4)
        eventually(lambda: unsent(living) == 0)
        assert done(living) == 4
        for _ in range(4):
            press_by_number(living)
        eventually(lambda: unsent(living) == 0)
    kept = [one["index"] for one in server.labels() if one["counted"]]
    assert len(kept) == len(set(kept)) == 8


def test_a_crashed_tab_keeps_the_pictures_it_has_unsent_clicks_for(
    server: Server, browser: Browser
) -> None:
    n = 6
    job, _ = server.ask(n, prefix="crashed tab")
    with annotator(browser, server) as page:
        shown(page)
        other = page.context.new_page()
        other.goto(server.url)
        other.wait_for_selector("#notice:not([hidden])")
        page.context.route("**/label/submit*", cut)
        for _ in range(4):
            press_by_number(page)
        eventually(lambda: on_disk(page) == 4)
        with pytest.raises(Error, match="crash"):
            page.goto("chrome://crash")
        page.close()
        for _ in range(n - 4):  # only what the crashed tab did not judge is asked again
            press_by_number(other)
        eventually(lambda: unsent(other) == n)
        assert server.stats()["leased"] == n
        page.context.unroute("**/label/submit*")
        eventually(lambda: unsent(other) == 0)
    assert_exact(server, job, n)


def test_an_undone_click_is_not_sent_by_another_tab(server: Server, browser: Browser) -> None:
    job, _ = server.ask(3, prefix="taken back")
    with annotator(browser, server) as page:
        shown(page)
        page.route("**/label/submit*", cut)  # of this tab alone
        press_by_number(page)  # this one is being tried
        second = number(shown(page))
        page.keyboard.press("Space")  # this one waits behind it
        eventually(lambda: on_disk(page) == 2)
        other = page.context.new_page()
        other.goto(server.url)
        other.wait_for_selector("#notice-title:not(:has-text('Loading'))")
        eventually(lambda: unsent(other) == 0)
        page.keyboard.press("Backspace")
        eventually(lambda: number(shown(page)) == second)
        page.unroute("**/label/submit*")
        press_by_number(page)
        press_by_number(page)
        eventually(lambda: unsent(page) == 0)
    assert_exact(server, job, 3)


def test_who_loses_clicks_by_a_reload_is_told_before(server: Server, browser: Browser) -> None:
    full = (
        "IDBObjectStore.prototype.put = () => { throw new DOMException('', 'QuotaExceededError') }"
    )
    job, _ = server.ask(2, prefix="disk full")
    with annotator(browser, server, script=full) as page:
        shown(page)
        assert page.is_hidden("#banner")
        page.route("**/label/submit*", cut)
        press_by_number(page)
        page.wait_for_selector("#banner:has-text('would be lost by a reload')")
        with page.expect_event("dialog") as asked:
            page.close(run_before_unload=True)
        assert asked.value.type == "beforeunload"
        asked.value.dismiss()
        page.unroute("**/label/submit*")
        press_by_number(page)
        eventually(lambda: unsent(page) == 0)
    assert_exact(server, job, 2)


def test_pictures_loaded_ahead_are_given_back_on_leaving(server: Server, browser: Browser) -> None:
    job, _ = server.ask(5, prefix="given back")
    with annotator(browser, server) as page:
        press_by_number(page)
        eventually(lambda: unsent(page) == 0)
        assert server.stats()["leased"] == 4
    eventually(lambda: server.stats()["leased"] == 0, 25)  # far less than a lease
    with annotator(browser, server) as page:
        for _ in range(4):
            press_by_number(page)
    assert_exact(server, job, 5)


def test_a_claim_still_on_its_way_when_the_page_reloads_holds_nothing(
    server: Server, browser: Browser
) -> None:
    job, _ = server.ask(4, prefix="in flight")
    unheard: list[int] = []

    def keep(route: Route) -> None:
        """The server leases the pictures, the page never hears of it."""
        answer = route.fetch()
        leased = len(answer.json()["items"])
        if unheard or leased == 0:
            route.fulfill(response=answer)
        else:
            unheard.append(leased)

    with annotator(browser, server) as page:
        page.wait_for_selector("#item:not([hidden])")
        page.context.route("**/label/claim*", keep)
        page.reload()
        # Asking the page something is what lets `keep` run.
        eventually(lambda: page.is_visible("body") and unheard == [4])
        assert server.stats()["leased"] == 4
        page.reload()
        for _ in range(4):  # at once, not when the lease of 30 s and more has run out
            press_by_number(page)
        eventually(lambda: unsent(page) == 0)
        page.context.unroute_all(behavior="ignoreErrors")
    assert_exact(server, job, 4)
