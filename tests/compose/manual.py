"""The commands of docs/operations.md that say they are tested, word for word."""

from __future__ import annotations

import re

from tests.compose.stack import ROOT, StackError


def manual(name: str) -> str:
    """The block of commands after the mark `<!-- tested: NAME -->`."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- tested: {name} -->\n((?:    .*\n)+)", text)
    if found is None:
        raise StackError(f"docs/operations.md has no tested block named {name!r}")
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE)
