"""What an annotator clicks is what the requester gets, by key and by button, undo included."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page

from shared.schema import ItemResult
from tests.support.labeling_setup import (
    PHONE,
    Server,
    annotator,
    click,
    done,
    eventually,
    number,
    press,
    shown,
    tap,
    unsent,
)

pytestmark = pytest.mark.browser

LIKE_KEYS = ("a", "1", "ArrowRight")
DISLIKE_KEYS = ("x", "0", "ArrowLeft")


def likes(index: int) -> bool:
    return index % 3 == 0


def votes(server: Server, job: str) -> list[tuple[int, int, int]]:
    """(like, dislike, skip) per item, as the requester sees them."""
    counted = [item.votes for item in server.client.job(job).data]
    return [(v.like, v.dislike, v.skip) for v in counted if v is not None]


def label_all(page: Page, n: int, by_key: bool) -> None:
    for step in range(n):
        liked = likes(number(shown(page)))
        if by_key:
            key = (LIKE_KEYS if liked else DISLIKE_KEYS)[step % 3]
            press(page, key)
        else:
            click(page, "#like" if liked else "#dislike")


@pytest.mark.parametrize("by_key", [True, False], ids=["keyboard", "buttons"])
def test_every_click_arrives_once_and_as_meant(
    server: Server, browser: Browser, by_key: bool
) -> None:
    n = 24
    job, _ = server.ask(n, prefix=f"{by_key} number")
    with annotator(browser, server) as page:
        shown(page)
        before = done(page)
        label_all(page, n, by_key)
        assert done(page) == before + n
    result = server.finished(job)
    assert result.rewards == [1.0 if likes(i) else 0.0 for i in range(n)]
    assert votes(server, job) == [(1, 0, 0) if likes(i) else (0, 1, 0) for i in range(n)]


def test_a_phone_labels_by_touch(server: Server, browser: Browser) -> None:
    job, _ = server.ask(6, prefix="touch")
    with annotator(browser, server, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        for _ in range(6):
            tap(page, "#like" if likes(number(shown(page))) else "#dislike")
    assert server.finished(job).rewards == [1.0 if likes(i) else 0.0 for i in range(6)]


def test_a_skip_is_no_dislike(server: Server, browser: Browser) -> None:
    job, _ = server.ask(4, prefix="skipped", max_skips=1)
    with annotator(browser, server) as page:
        for _ in range(4):
            liked = number(shown(page)) < 2
            key = "a" if liked else "Space"
            press(page, key)
    result = server.finished(job)
    assert result.rewards == [1.0, 1.0, None, None]
    assert votes(server, job) == [(1, 0, 0), (1, 0, 0), (0, 0, 1), (0, 0, 1)]


def test_undo_retracts_on_the_server_and_asks_again(server: Server, browser: Browser) -> None:
    job, _ = server.ask(5, prefix="undone")
    with annotator(browser, server) as page:
        first = number(shown(page))
        press(page, "x")
        eventually(lambda: votes(server, job)[first] == (0, 1, 0))
        press(page, "Backspace")
        assert number(shown(page)) == first
        eventually(lambda: votes(server, job)[first] == (0, 0, 0))
        press(page, "a")
        eventually(lambda: votes(server, job)[first] == (1, 0, 0))
        label_rest(page, 4)
    assert server.finished(job).rewards[first] == 1.0


def label_rest(page: Page, n: int) -> None:
    for _ in range(n):
        shown(page)
        press(page, "a")
    eventually(lambda: unsent(page) == 0)  # who closes the browser for good may lose the rest


def test_ten_clicks_can_be_undone_in_a_row(server: Server, browser: Browser) -> None:
    job, _ = server.ask(12, prefix="ten")
    with annotator(browser, server) as page:
        order = []
        for _ in range(11):
            order.append(number(shown(page)))
            press(page, "x")
        for index in reversed(order[1:]):
            click(page, "#undo")
            assert number(shown(page)) == index
        eventually(lambda: sum(dislike for _, dislike, _ in votes(server, job)) == 1)
        label_rest(page, 11)
    result = server.finished(job)
    assert [i for i, reward in enumerate(result.rewards) if reward == 0.0] == order[:1]


def test_undo_reaches_back_over_a_reload(server: Server, browser: Browser) -> None:
    job, _ = server.ask(3, prefix="reloaded")
    with annotator(browser, server) as page:
        first = number(shown(page))
        press(page, "x")
        eventually(lambda: unsent(page) == 0)
        page.reload()
        shown(page)
        page.keyboard.press("Backspace")
        eventually(lambda: number(shown(page)) == first)
        label_rest(page, 3)
    assert server.finished(job).rewards == [1.0, 1.0, 1.0]


def test_what_the_trainer_has_used_cannot_be_undone(server: Server, browser: Browser) -> None:
    job, _ = server.ask(1, prefix="used")
    with annotator(browser, server) as page:
        shown(page)
        press(page, "a")
        server.finished(job)
        server.client.ack(job)
        page.keyboard.press("Backspace")
        page.wait_for_selector("#toast.shown:has-text('too late to undo')")
        assert page.is_hidden("#item")
    data: list[ItemResult] = server.client.job(job).data
    assert [item.reward for item in data] == [1.0]


def test_a_held_key_labels_one_picture_only(server: Server, browser: Browser) -> None:
    job, _ = server.ask(4, prefix="held")
    with annotator(browser, server) as page:
        shown(page)
        for _ in range(3):
            page.keyboard.down("a")  # without an up in between these are the key's repeats
        page.keyboard.up("a")
        eventually(lambda: sum(like for like, _, _ in votes(server, job)) == 1)
        label_rest(page, 3)
    assert server.finished(job).rewards == [1.0] * 4


def test_space_presses_the_focused_button_and_skips_otherwise(
    server: Server, browser: Browser
) -> None:
    job, _ = server.ask(3, prefix="focus", max_skips=1)
    with annotator(browser, server) as page:
        by_focus = number(shown(page))
        page.focus("#like")
        press(page, "Space")
        by_pointer = number(shown(page))
        click(page, "#like")  # must not keep the focus
        by_space = number(shown(page))
        press(page, "Space")
    rewards = server.finished(job).rewards
    assert (rewards[by_focus], rewards[by_pointer], rewards[by_space]) == (1.0, 1.0, None)
