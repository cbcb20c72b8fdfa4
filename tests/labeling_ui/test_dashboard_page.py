"""Promise: the requester sees the run and its people live, changes what people are asked, takes the
data away; on a phone, in the dark, with a keyboard, by ear, and behind an API key.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from reward_server.__main__ import main
from shared.client import RewardClient
from tests.support.dashboard_setup import ask_group, clicking, dashboard, violations
from tests.support.labeling_setup import (
    DESKTOP,
    PHONE,
    Server,
    annotator,
    done,
    eventually,
    running_server,
    shown,
)

pytestmark = pytest.mark.browser


def says(page: Page, selector: str, text: str) -> None:
    page.wait_for_selector(f"{selector}:has-text({json.dumps(text)})")


def judge(labeler: Page, *keys: str) -> None:
    """Press keys on the labeling page, one per picture."""
    for key in keys:
        shown(labeler)
        before = done(labeler)
        labeler.keyboard.press(key)
        eventually(lambda before=before: done(labeler) == before + 1)


def test_an_empty_server_says_what_to_do(server: Server, browser: Browser) -> None:
    with dashboard(browser, server.url) as page:
        says(page, "#empty", "make run REWARD=human")
        says(page, "#chart-empty", "run_id and a step")
        says(page, "#people-empty", "Nobody has clicked")
        assert page.is_hidden("#waiting")
        assert violations(page) == []
        ask_group(server.client, "first", 0, [True])
        says(page, "#awaited-title", "Waiting for people")
        assert page.is_hidden("#empty")
        assert page.input_value("#run") == "first"


def test_a_click_on_the_labeling_page_shows_on_the_dashboard(
    server: Server, browser: Browser
) -> None:
    ask_group(server.client, "run", 3, [True, True, False])
    with dashboard(browser, server.url, "run") as page, annotator(browser, server) as labeler:
        says(page, "#awaited-text", "3 pictures in 1 group")
        judge(labeler, "a", "x")
        page.wait_for_selector(".cells[aria-label*='1 liked, 1 disliked']")
        says(page, "#annotators", "local")
        judge(labeler, "a")
        says(page, "#awaited-title", "The trainer is at work")
        page.wait_for_selector("#chart svg[aria-label*='like rate 67 %']")
        assert page.title().startswith("67 % like it")


def test_the_run_is_drawn_as_people_click_and_pictures_change(
    server: Server, browser: Browser
) -> None:
    """The likes of light pictures rise step by step, as they would while a trainer learns."""
    with clicking(server, "anna", "ben"), dashboard(browser, server.url, "run") as page:
        for step in range(5):
            lights = [i < 1 + step for i in range(6)]
            asked = ask_group(server.client, "run", step, lights, votes=2)
            server.finished(asked)
            assert server.client.job(asked).rewards == [float(light) for light in lights]
            says(page, "#strips .strip", f"step {step}")
        label = "like rate from 17 % at step 0 to 83 % at step 4"
        page.wait_for_selector(f"#chart svg[aria-label*='{label}']")
        says(page, "#annotators", "agrees 100 %")
        says(page, "#agreement", "Agreement beyond chance 1.00")
        loaded = "[...document.querySelectorAll('#strips img')].filter(i => i.naturalWidth).length"
        eventually(lambda: page.evaluate(loaded) == 5)
        assert violations(page) == []


def test_settings_are_edited_and_obeyed(server: Server, browser: Browser) -> None:
    with dashboard(browser, server.url, "run") as page:
        ask_group(server.client, "run", 0, [True])
        says(page, "#awaited-title", "Waiting for people")
        page.fill("[name=instruction]", "Is it light?")
        page.fill("[name=votes]", "3")
        page.fill("[name=quorum]", "2")
        ask_group(server.client, "run", 1, [True])  # polls go on, and must not undo the typing
        says(page, "#awaited-text", "2 pictures in 2 groups")
        page.wait_for_timeout(2500)
        assert page.input_value("[name=votes]") == "3"
        page.click("#settings [type=submit]")
        says(page, "#settings-said", "Saved")
        found = httpx.get(f"{server.url}/campaigns/run", trust_env=False).json()
        assert found["changed"] == ["instruction", "quorum", "votes"]
        assert found["settings"]["instruction"] == "Is it light?"
        ask_group(server.client, "run", 2, [True])
        assert sorted(instructions(server), key=str) == ["Is it light?", None, None]
        page.click("#defaults")
        eventually(lambda: page.input_value("[name=votes]") == "1")
        assert httpx.get(f"{server.url}/campaigns/run", trust_env=False).json()["changed"] == []


def instructions(server: Server) -> list[str | None]:
    """What somebody new is told about each picture that waits."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        http.post("/label/session", json={"name": "new"}).raise_for_status()
        items = http.post("/label/claim", json={"n": 32}).raise_for_status().json()["items"]
    return [item["instruction"] for item in items]


def test_contradictory_settings_are_refused_in_words(server: Server, browser: Browser) -> None:
    with dashboard(browser, server.url, "run") as page:
        ask_group(server.client, "run", 0, [True])
        says(page, "#awaited-title", "Waiting for people")
        page.fill("[name=quorum]", "2")
        page.eval_on_selector("#settings", "form => { form.noValidate = true; }")
        page.click("#settings [type=submit]")
        says(page, "#settings-said", "quorum=2 can never be reached with votes=1")
        assert page.input_value("[name=quorum]") == "2"
        page.click("#settings [type=reset]")
        assert page.input_value("[name=quorum]") == ""


def test_what_people_said_is_taken_away(server: Server, browser: Browser, tmp_path: Path) -> None:
    asked = ask_group(server.client, "run", 0, [True, False])
    ask_group(server.client, "other", 0, [True, False])
    with clicking(server, "anna"):
        server.finished(asked)
    with dashboard(browser, server.url, "run") as page:
        says(page, "#annotators", "anna")
        for what, rows in (("labels", 2), ("preferences", 1)):
            button = f"[data-export={what}][data-format=jsonl]"
            with page.expect_download() as download:
                page.click(button)
            assert download.value.suggested_filename == f"{what}.jsonl"
            download.value.save_as(tmp_path / what)
            lines = (tmp_path / what).read_text().splitlines()
            assert [json.loads(line)["run_id"] for line in lines] == ["run"] * rows


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_fits_and_axe_finds_nothing(
    server: Server, browser: Browser, size: dict[str, int], scheme: str
) -> None:
    long = "a photograph of an extraordinarily long-winded description, " * 9
    asked = [ask_group(server.client, "run", step, [True] * 9, prompt=long) for step in range(2)]
    with clicking(server, "anna"):
        for one in asked:
            server.finished(one)
    ask_group(server.client, "run", 2, [True] * 60, prompt=long)
    options = {"viewport": size, "color_scheme": scheme}
    with dashboard(browser, server.url, "run", **options) as page:
        page.wait_for_selector("#strips img")
        page.wait_for_selector("#chart svg")
        page.wait_for_selector("#annotators .person")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page_color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(page_color.removeprefix("rgb(").split(",")[0]) < 80) == (scheme == "dark")
        for button in page.query_selector_all("button:visible, select"):
            box = button.bounding_box()
            assert box is not None and box["height"] >= 44
        assert violations(page) == []


def test_the_keyboard_reaches_everything(server: Server, browser: Browser) -> None:
    jobs = [ask_group(server.client, "run", step, [step > 0]) for step in range(3)]
    with clicking(server, "anna"):
        for one in jobs:
            server.finished(one)
    ask_group(server.client, "another", 0, [True])
    with dashboard(browser, server.url, "run") as page:
        page.wait_for_selector("#chart svg")
        page.focus("#chart svg")
        page.keyboard.press("ArrowRight")
        says(page, ".tip", "step 0")
        says(page, ".tip", "like rate 0 %, 1 picture")
        page.keyboard.press("ArrowRight")
        says(page, ".tip", "step 1")
        page.focus("#run")
        page.select_option("#run", "another")
        says(page, "#awaited-text", "1 picture in 1 group")
        assert page.url.endswith("?run=another")


def test_behind_a_key_the_page_asks_for_it_and_shows_pictures(
    tmp_path: Path, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "--name", "me", "--data", str(tmp_path / "data")]) == 0
    key = capsys.readouterr().out.strip()
    with running_server(tmp_path) as server, RewardClient(server.url, api_key=key) as client:
        for step in range(2):
            ask_group(client, "run", step, [True, False])
        with dashboard(browser, server.url) as page:
            page.wait_for_selector("#key[open]")
            page.fill("#key-input", "rsk_wrong")
            page.keyboard.press("Enter")
            says(page, "#key-said", "unknown or revoked")
            page.fill("#key-input", key)
            page.keyboard.press("Enter")
            says(page, "#awaited-title", "Waiting for people")
            page.wait_for_selector("#strips img[src^='blob:']")
            loaded = "document.querySelector('#strips img').naturalWidth"
            eventually(lambda: page.evaluate(loaded) == 24)
            page.click("[data-export=labels][data-format=csv]")
            says(page, "#settings-said", "this needs 'admin'")
            page.reload()
            says(page, "#awaited-title", "Waiting for people")


def test_a_server_that_is_away_is_called_so_and_found_again(
    server: Server, browser: Browser
) -> None:
    ask_group(server.client, "run", 0, [True])
    with dashboard(browser, server.url, "run") as page:
        page.wait_for_selector("#live[data-state=up]")
        server.kill()
        says(page, "#live", "no connection")
        server.start()
        page.wait_for_selector("#live[data-state=up]")
        says(page, "#awaited-title", "Waiting for people")
