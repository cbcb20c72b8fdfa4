"""`python -m trainer.config.reference`: writes docs/configuration.md from the typed tree.

Keys, ranges and defaults come from the classes, explanations from their docstrings and from the
comments beside the fields, so that there is one place to say what a key does.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config.tree import Config, PromptSet, Section

FILE = Path("docs/configuration.md")
HEAD = """# Configuration

Written by `python -m trainer.config.reference` from `trainer/config/tree.py`; a test holds it to
that.

A run is one TOML file; everything it leaves out has the default below. `--set a.b=c` changes any
value on the command line, and an unknown key is an error that names the nearest known one.

    python -m trainer train --config my.toml --set surrogate.lr=1e-4 --set generator.rho=4

`recipe = "authors-ocr"` puts a file of `trainer/configs/recipes/` under the file that names it, and
`--set recipe=authors-ocr` puts it over the file ([the recipes and their maths](algorithm.md)).

Examples: `trainer/configs/tiny.toml` (the embedded model), `trainer/configs/tiny-human.toml`
(clicks), `trainer/configs/sd35-medium.toml` (a full-size model). `python -m trainer doctor --config
my.toml` says what would stop a run.
"""
FIELD = re.compile(r"^    (\w+):")


@dataclass(frozen=True)
class Key:
    """One line of a table."""

    name: str
    values: str
    default: str
    meaning: str


def keys_of(section: type[Section]) -> Iterator[Key]:
    """The keys of a section, in the order of the class."""
    comments = comments_of(section)
    for name, field in section.model_fields.items():
        held = _section_in(field)
        if held is None:
            yield Key(name, _values(field), _default(field), comments.get(name, ""))
        elif section is not Config:
            yield Key(name, "tables like `[[prompts]]`", "[]", comments.get(name, ""))


def comments_of(section: type[Section]) -> dict[str, str]:
    """Field name -> the comment above it and behind it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(section).splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            above.append(stripped.lstrip("# "))
            continue
        if match := FIELD.match(line):
            behind = line.split("  # ", 1)[1:]
            found[match[1]] = " ".join([*above, *behind])
        above = []
    return found


def _section_in(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, or holds a list of."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind if issubclass(kind, Section) else None
    return None


def _values(field: FieldInfo) -> str:
    """Type and range, as a person writes them."""
    kind = _name(field.annotation)
    limits = [
        f"{sign} {value:g}"
        for mark in field.metadata
        for sign, value in (
            (">", getattr(mark, "gt", None)),
            ("≥", getattr(mark, "ge", None)),
            ("<", getattr(mark, "lt", None)),
            ("≤", getattr(mark, "le", None)),
        )
        if value is not None
    ]
    return ", ".join([kind, *limits])


def _name(kind: Any) -> str:
    parts = get_args(kind)
    if kind is type(None):
        return "none"
    if isinstance(kind, type) and not parts:
        return {"str": "text", "bool": "true or false", "Path": "path"}.get(
            kind.__name__, kind.__name__
        )
    if parts and all(isinstance(one, str) for one in parts):
        return " or ".join(f"`{one}`" for one in parts)
    origin = getattr(kind, "__origin__", None)
    if origin is tuple:
        return "list of " + _name(parts[0])
    if origin is dict:
        return "table"
    if hasattr(kind, "__metadata__"):
        return _name(parts[0])
    return " or ".join(dict.fromkeys(_name(one) for one in parts)) or str(kind)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return json.dumps(value, default=str)


def _sections() -> Iterator[tuple[str, type[Section]]]:
    """Table name -> section, in the order of the tree."""
    yield "", Config
    for name, field in Config.model_fields.items():
        section = _section_in(field)
        if section is not None:
            yield ("[prompts]" if section is PromptSet else name), section


def _table(keys: list[Key]) -> str:
    rows = ["| key | values | default | |", "|---|---|---|---|"]
    for key in keys:
        cells = (f"`{key.name}`", key.values, f"`{key.default}`", key.meaning)
        rows.append("| " + " | ".join(cell.replace("|", r"\\|") for cell in cells) + " |")
    return "\n".join(rows)


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for name, section in _sections():
        keys = list(keys_of(section))
        if keys:
            title = f"`[{name}]`" if name else "At the top"
            parts.append(f"## {title}\n\n{inspect.getdoc(section)}\n\n{_table(keys)}\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    FILE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
