"""A configuration from its layers: defaults, recipe, file, command line, each over the one before.

A recipe is a file of `trainer/configs/recipes/`, named by the key `recipe`: in a file it lies under
that file's own values, in `--set recipe=NAME` over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.config.reading import Tree, apply_override, read_toml, validate
from trainer.config.tree import Config
from trainer.errors import ConfigError

RECIPES = Path(__file__).parents[1] / "configs" / "recipes"
KEY = "recipe"


def load_config(path: Path | str | None, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file (None: all defaults) and applies overrides like "surrogate.lr=1e-4".

    Paths of prompt files, models and LoRAs are taken as written, from the working directory.
    Raises ConfigError naming the key, the value and the nearest known key.
    """
    return _overridden(with_recipe(read_toml(Path(path))) if path is not None else {}, overrides)


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with overrides like "surrogate.lr=1e-4" in place of its own values."""
    return _overridden(config.model_dump(mode="json"), overrides)


def with_recipe(tree: Tree) -> Tree:
    """The tree over the recipe it names, which may name another."""
    if KEY not in tree:
        return tree
    return merged(with_recipe(read_recipe(tree[KEY])), tree)


def read_recipe(name: object) -> Tree:
    """The recipe of that name as nested dictionaries; raises ConfigError with those there are."""
    file = RECIPES / f"{name}.toml"
    known = sorted(path.stem for path in RECIPES.glob("*.toml"))
    if name not in known:
        raise ConfigError(f"there is no {KEY} {name!r}; there are {', '.join(known)}")
    return read_toml(file)


def merged(below: Tree, above: Tree) -> Tree:
    """Both, table by table; where both have a value, that of `above`."""
    tree = dict(below)
    for key, value in above.items():
        inner = tree.get(key)
        tables = isinstance(inner, dict) and isinstance(value, dict)
        tree[key] = merged(dict(inner or {}), value) if tables else value
    return tree


def _overridden(tree: Tree, overrides: Sequence[str]) -> Config:
    for override in overrides:
        apply_override(tree, override)
        if override.partition("=")[0].strip() == KEY:
            tree = merged(tree, with_recipe({KEY: tree[KEY]}))
    return validate(Config, tree)
