"""Every keyboard works: letters of other scripts, digits that need Shift, full-width characters."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Browser, Page

from tests.support.labeling_setup import Server, annotator, press_event, shown

pytestmark = pytest.mark.browser

# What a keyboard sends (key, code), and what it means here.
MEANINGS = [
    ("ф", "KeyA", "like"),  # Russian
    ("Ф", "KeyA", "like"),
    ("α", "KeyA", "like"),  # Greek
    ("ش", "KeyA", "like"),  # Arabic
    ("ש", "KeyA", "like"),  # Hebrew
    ("ㅁ", "KeyA", "like"),  # Korean
    ("ฟ", "KeyA", "like"),  # Thai
    ("ч", "KeyX", "dislike"),
    ("а", "KeyF", "flag"),  # a Cyrillic letter that looks like a Latin one
    ("я", "KeyZ", "undo"),
    ("з", "KeyP", "pixels"),
    ("р", "KeyH", "help"),
    ("Process", "KeyA", "like"),  # an input method that is composing
    ("&", "Digit1", "like"),  # AZERTY without Shift
    ("à", "Digit0", "dislike"),
    ("é", "Digit2", None),
    ("+", "Digit1", "like"),  # Czech
    ("١", "Digit1", "like"),  # Arabic-Indic
    ("ａ", "KeyA", "like"),  # full width
    ("１", "Digit1", "like"),
    ("\u3000", "Space", "skip"),
    ("a", "KeyQ", "like"),  # AZERTY: the letter that is printed on it decides
    ("q", "KeyA", None),
    (";", "KeyZ", None),  # Dvorak
    ("ö", "Semicolon", None),
    ("ф", "", None),
]


def test_keys_mean_the_same_on_every_keyboard(server: Server, browser: Browser) -> None:
    with annotator(browser, server) as page:
        found = [meaning(page, key, code) for key, code, _ in MEANINGS]
        shifted = meaning(page, "!", "Digit1", shiftKey=True)
    assert found == [action for _, _, action in MEANINGS]
    assert shifted is None


def meaning(page: Page, key: str, code: str, **fields: bool) -> str | None:
    event = json.dumps({"key": key, "code": code, **fields})
    action: str | None = page.evaluate(
        f"""async () => {{
          const keys = await import("./static/keys.js");
          return keys.actionFor({event}, keys.DEFAULT_BINDINGS);
        }}"""
    )
    return action


def test_a_cyrillic_keyboard_judges_flags_and_chooses_its_own_key(
    server: Server, browser: Browser
) -> None:
    job, _ = server.ask(3, prefix="кот", max_skips=1)
    with annotator(browser, server) as page:
        first = shown(page)
        press_event(page, "ф", "KeyA")
        second = shown(page)
        assert second != first
        press_event(page, "а", "KeyF")
        page.wait_for_selector("#flag-why[open]")
        press_event(page, "&", "Digit1", "#flag-why")
        page.wait_for_function(
            "before => document.querySelector('#prompt').innerText !== before", arg=second
        )
        page.keyboard.press("h")
        page.click("[data-change='like']")
        press_event(page, "о", "KeyJ", "#help")
        assert page.inner_text("#keys-said") == "Like is J now."
        page.keyboard.press("Escape")
        shown(page)
        page.keyboard.press("j")
        page.wait_for_selector("#item", state="hidden")
    assert sorted(map(str, server.finished(job).rewards)) == ["1.0", "1.0", "None"]
