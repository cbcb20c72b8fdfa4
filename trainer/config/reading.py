"""TOML and `--set` into a validated tree, with errors a person can act on.

What the keys mean is said by the tree's own classes. An unknown key is an error that names the
nearest known one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from trainer.errors import ConfigError

Tree = dict[str, Any]
T = TypeVar("T", bound=BaseModel)


def read_toml(path: Path) -> Tree:
    """The file as nested dictionaries."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration file {path}; see trainer/configs/") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def apply_override(tree: Tree, override: str) -> None:
    """Puts "a.b=c" into the tree; c is read as TOML, or else as a plain string."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r} is not of the form section.key=value")
    node: Any = tree
    for key in keys[:-1]:
        node = _child(node, key, override)
    node[_index(node, keys[-1], override)] = _value(text.strip())


def overridden(model: type[T], tree: Tree, overrides: Sequence[str]) -> T:
    """The typed tree after overrides like "a.b=c", which are written into `tree`."""
    for override in overrides:
        apply_override(tree, override)
    return validate(model, tree)


def validate(model: type[T], tree: Tree) -> T:
    """The typed tree, or one ConfigError listing everything that is wrong with it."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_sentence(model, e) for e in error.errors(include_url=False)]
        raise ConfigError("the configuration has a problem:\n  " + "\n  ".join(lines)) from error


def _child(node: Any, key: str, override: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(key, {})
    return node[_index(node, key, override)]


def _index(node: Any, key: str, override: str) -> Any:
    if isinstance(node, dict):
        return key
    if isinstance(node, list) and key.isdigit() and int(key) < len(node):
        return int(key)
    raise ConfigError(f"--set {override!r}: {key!r} leads nowhere")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _sentence(model: type[BaseModel], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_nearest(model, error['loc'])}"
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{where} = {error['input']!r}: {error['msg']}"


def _nearest(model: type[BaseModel], loc: tuple[str | int, ...]) -> str:
    """Says which known key is meant: of the same section first, else of the whole tree."""
    section: type[BaseModel] | None = model
    for part in loc[:-1]:
        if isinstance(part, str) and section is not None:
            section = _section_type(section, part)
    known = list(section.model_fields) if section is not None else []
    close = difflib.get_close_matches(str(loc[-1]), known, 1, 0.5)
    if close:
        prefix = "".join(f"{part}." for part in loc[:-1])
        return f"; did you mean {prefix}{close[0]}?"
    everywhere = _all_keys(model)
    home = difflib.get_close_matches(str(loc[-1]), [k.split(".")[-1] for k in everywhere], 1, 0.8)
    if home:
        return "; did you mean " + next(k for k in everywhere if k.split(".")[-1] == home[0]) + "?"
    return f"; known here: {', '.join(known)}"


def _section_type(section: type[BaseModel], field: str) -> type[BaseModel] | None:
    """The model class of a field, also inside `tuple[X, ...]`."""
    if field not in section.model_fields:
        return None
    annotation = section.model_fields[field].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name in model.model_fields:
        keys.append(prefix + name)
        inner = _section_type(model, name)
        if inner is not None:
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys
