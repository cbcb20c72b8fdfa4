"""A configuration may name a recipe: it lies under the file, and over it on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_backbone import Recording, rolled_out, small_config
from tests.support.small_updates import scored
from trainer.config import load_config, with_overrides
from trainer.config.loading import RECIPES
from trainer.errors import ConfigError
from trainer.tdm_r1.update import TdmR1

NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))


def test_a_recipe_lies_under_the_file_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('recipe = "authors-ocr"\n[surrogate]\nlr = 7e-4\n')
    config = load_config(file, ["generator.lr=1e-4"])
    assert config.recipe == "authors-ocr"
    assert (config.surrogate.lr, config.generator.lr) == (7e-4, 1e-4)
    assert (config.surrogate.beta, config.generator.form) == (10, "mixture")


def test_a_recipe_of_the_command_line_lies_over_the_file() -> None:
    tiny = Path("trainer/configs/tiny.toml")
    config = load_config(tiny, ["recipe=authors-ocr", "groups.size=8"])
    assert config.model == load_config(tiny).model
    assert config.prompts == load_config(tiny).prompts
    assert (config.surrogate.lr, config.surrogate.t_min, config.groups.size) == (3e-4, 0.3, 8)
    again = with_overrides(config, ["surrogate.t_min=0.4"])
    assert (again.surrogate.t_min, again.surrogate.lr) == (0.4, 3e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_all_three_roles(name: str) -> None:
    small = ("lora.rank=2", "groups.size=4", "groups.per_step=2", "groups.dead_std=1e-9")
    state = Recording(small_config(f"recipe={name}", *small))
    batch = rolled_out(state)
    metrics = TdmR1(state).update(batch, scored(batch), 3, 0.0)
    assert set(state.gradients) == {"surrogate", "fake", "generator"}
    for role, gradients in state.gradients.items():
        assert all(float(g.abs().max()) > 0 for g in gradients), role
    assert metrics["force/factor"] == pytest.approx(0.7)


def test_the_settings_of_the_published_code() -> None:
    """config/tdmr1_clean.py of Luo-Yihong/TDM-R1: what its settings differ in."""
    found = {}
    for name in ("authors-ocr", "authors-geneval", "authors-preference"):
        c = load_config(None, [f"recipe={name}"])
        phi, generator = c.surrogate, c.generator
        heard = generator.phi_cfg, generator.phi_t_min, generator.phi_steps
        found[name] = (c.groups.per_step, phi.t_min, phi.beta, phi.clip, *heard)
    assert found == {
        "authors-ocr": (48, 0.3, 10, 1e-3, 4.5, 0.3, None),
        "authors-geneval": (48, 0.55, 1, 1e-3, 2.5, 0.25, None),
        "authors-preference": (24, 0.55, 1, 2e-3, 3.5, 0.4, 2),
    }


def test_an_unknown_recipe_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'authers'.*authors-ocr"):
        load_config(None, ["recipe=authers"])
    file = tmp_path / "own.toml"
    file.write_text('recipe = "../tiny"\n')
    with pytest.raises(ConfigError, match="no recipe"):
        load_config(file)
