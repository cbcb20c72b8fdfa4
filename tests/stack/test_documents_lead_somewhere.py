"""Promise: what README and the documents link to, show and list is in the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
PLACE = re.compile(
    r"`((?:trainer|reward_server|labeling_ui|shared|tests|docs|benchmarks)/[\w./-]*)`"
)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_places_that_pages_name_are_there() -> None:
    # The lab notes tell of the tree as it was on their days.
    texts = {page: page.read_text() for page in PAGES if page.name != "lab-notes.md"}
    places = [(page, place) for page, text in texts.items() for place in PLACE.findall(text)]
    assert len(places) > 10
    assert [(page.name, place) for page, place in places if not (ROOT / place).exists()] == []
