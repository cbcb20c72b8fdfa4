"""The page on the configuration is what the typed tree says, key by key."""

from __future__ import annotations

from trainer.config import Config
from trainer.config.reference import FILE, comments_of, page
from trainer.config.tree import GroupsConfig


def test_the_page_in_the_tree_is_up_to_date() -> None:
    again = "write it again: python -m trainer.config.reference"
    assert FILE.read_text(encoding="utf-8") == page(), again


def test_every_key_has_its_line() -> None:
    lines = page().splitlines()
    for section in Config().model_dump().values():
        for name in section if isinstance(section, dict) else ():
            assert any(line.startswith(f"| `{name}` |") for line in lines), name


def test_comments_above_and_behind_a_key_explain_it() -> None:
    found = comments_of(GroupsConfig)
    assert found["dead_std"].startswith("of the reward's range")
    assert found["replays"].startswith("Iterations on stored groups")
