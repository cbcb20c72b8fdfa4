"""The page speaks the annotator's language, and shows prompts of every script as they are meant."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page

from tests.support.labeling_setup import ROOT, Server, annotator, shown

pytestmark = pytest.mark.browser

UI = ROOT / "labeling_ui"
SHAPE = """async () => {
  const { LANGUAGES } = await import("./static/language.js");
  const shape = (value) => {
    if (typeof value === "function") return `function of ${value.length}`;
    if (typeof value !== "object") return typeof value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, shape(v)]));
  };
  return Object.fromEntries(Object.entries(LANGUAGES).map(([tag, all]) => [tag, shape(all)]));
}"""


def test_every_language_has_the_same_messages(server: Server, browser: Browser) -> None:
    with annotator(browser, server) as page:
        shapes = page.evaluate(SHAPE)
    assert set(shapes) == {"en", "de"}
    assert shapes["de"] == shapes["en"]
    named = re.findall(r'data-(?:text|label)="(\w+)"', (UI / "index.html").read_text())
    assert len(named) > 40 and set(named) <= set(shapes["en"])
    sources = "".join(path.read_text() for path in UI.glob("*.js"))
    used = set(re.findall(r"\bwords\.(\w+)", sources)) - {"keyNames"}
    assert used <= set(shapes["en"])
    said = set(named) | used | {"name", "keyNames", "like", "undo", "pixels"}
    assert set(shapes["en"]) <= said, "a message that nothing says"


def texts(page: Page) -> dict[str, str]:
    names = ("#like span", "#undo span span", "#instruction", "#help-open span")
    return {name: page.inner_text(name) for name in names}


def test_the_browsers_language_is_spoken_and_another_can_be_chosen(
    server: Server, browser: Browser
) -> None:
    server.ask(1, prefix="eine Katze")
    with annotator(browser, server, locale="de-AT") as page:
        shown(page)
        german = texts(page)
        assert page.get_attribute("html", "lang") == "de"
        assert german["#like span"] == "Gefällt"
        assert german["#instruction"].startswith("Gefällt dir dieses Bild")
        page.keyboard.press("h")
        page.select_option("#language", "en")
        assert page.inner_text("#help-title") == "Help"
        page.keyboard.press("Escape")
        assert texts(page)["#instruction"] == "Do you like this picture for this text?"
        page.reload()
        shown(page)
        assert texts(page)["#like span"] == "Like" and page.get_attribute("html", "lang") == "en"
    with annotator(browser, server, locale="fr-FR") as page:
        shown(page)
        assert texts(page)["#like span"] == "Like"


@pytest.mark.parametrize(
    ("prompt", "direction"), [("قطة حمراء", "rtl"), ("a red cat", "ltr"), ("חתול אדום", "rtl")]
)
def test_prompts_run_in_their_own_direction(
    server: Server, browser: Browser, prompt: str, direction: str
) -> None:
    server.ask_about(prompt, 1)
    with annotator(browser, server) as page:
        assert shown(page) == prompt
        style = "getComputedStyle(document.querySelector('#prompt')).direction"
        assert page.evaluate(style) == direction


def test_line_breaks_are_kept_and_an_empty_prompt_says_so(server: Server, browser: Browser) -> None:
    server.ask_about("first line\nsecond line", 1)
    with annotator(browser, server) as page:
        assert shown(page) == "first line\nsecond line"
        page.keyboard.press("a")
        page.wait_for_selector("#item", state="hidden")
        server.ask_about("", 1)
        assert shown(page) == "(This picture was made without a text.)"


def test_the_wheel_enlarges_where_the_pointer_is_and_a_drag_looks_around(
    server: Server, browser: Browser
) -> None:
    server.ask(1, prefix="near")
    with annotator(browser, server) as page:
        prompt = shown(page)
        before = box(page)
        at = (before["x"] + before["width"] / 4, before["y"] + before["height"] / 4)
        page.mouse.move(*at)
        page.mouse.wheel(0, -600)
        page.wait_for_function(
            "least => document.querySelector('#stage img').getBoundingClientRect().width > least",
            arg=2 * before["width"],
        )
        after = box(page)
        for axis, size, place in (("x", "width", at[0]), ("y", "height", at[1])):
            share = (place - after[axis]) / after[size]
            assert share == pytest.approx(0.25, abs=0.03), "the same spot is under the pointer"
        page.mouse.down()
        page.mouse.move(at[0] - 60, at[1])
        page.mouse.up()
        assert box(page)["x"] == pytest.approx(after["x"] - 60, abs=2)
        page.mouse.dblclick(*at)
        assert box(page) == before
        assert shown(page) == prompt, "looking around judges nothing"


def box(page: Page) -> dict[str, float]:
    found: dict[str, float] = page.evaluate(
        "document.querySelector('#stage img').getBoundingClientRect().toJSON()"
    )
    return found
