"""A configuration is typed: typos name the nearest key, impossible combinations name the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import Config, load_config
from trainer.errors import ConfigError

CONFIGS = [
    path
    for path in sorted(Path("trainer/configs").glob("*.toml"))
    if not path.name.startswith("pretrain")  # another tree: `trainer.pretraining.pretrain`
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_configurations_load(path: Path) -> None:
    config = load_config(path)
    for prompts in (*config.prompts, *config.heldout.prompts):
        assert prompts.file.is_file(), prompts.file


def test_file_and_overrides_are_layered(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('method = "tdm_only"\n[surrogate]\nlr = 1e-3\nbeta = 7\n')
    config = load_config(file, ["surrogate.lr=5e-4", "run.name=x", "generator.ratio_cap=2"])
    assert config.method == "tdm_only"
    assert (config.surrogate.lr, config.surrogate.beta) == (5e-4, 7.0)
    assert (config.run.name, config.generator.ratio_cap) == ("x", 2.0)
    assert load_config(None) == Config()


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[[prompts]]\nfile = "a.jsonl"\nreward = "ocr"\n')
    assert load_config(file, ["prompts.0.share=3"]).prompts[0].share == 3.0
    with pytest.raises(ConfigError, match="'1' leads nowhere"):
        load_config(file, ["prompts.1.share=3"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("surrogate.beat=1", r"surrogate\.beat: unknown key; did you mean surrogate\.beta\?"),
        ("surogate.beta=1", r"surogate: unknown key; did you mean surrogate\?"),
        ("group_size=3", r"group_size: unknown key"),
        ("rho=3", r"rho: unknown key; did you mean generator\.rho\?"),
        ("generator.group=3", r"generator\.group: unknown key; did you mean"),
        ("surrogate.lr=fast", r"surrogate\.lr = 'fast'"),
        ("surrogate.lr=-1", r"surrogate\.lr = -1"),
        ("method=ppo", r"method = 'ppo'.*tdm_r1.*tdm_only"),
        ("groups.size=1", r"groups\.size = 1"),
        ("noequals", "not of the form"),
    ],
)
def test_mistakes_name_the_value_and_the_remedy(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["groups.size=4", "groups.min_valid=5"], "lower min_valid"),
        (["groups.replays=1", "groups.per_step=9", "groups.memory=8"], "holds no batch"),
        (["groups.replays=4", "server.window=16"], "set it to 20"),
        (["target.kind=bridge", "target.t_min_gap=0"], "singular"),
        (["reference.kind=ema", "surrogate.ema=0.98"], "sign would flip"),
        (
            [
                "reference.kind=ema",
                "surrogate.ema=0",
                "surrogate.kl=1",
                "surrogate.kl_anchor=teacher",
            ],
            "kl_anchor = 'reference'",
        ),
        (["surrogate.t_min=0.7", "surrogate.t_range=segment"], "t_range = 'full'"),
        (["surrogate.t_min=0.98"], "no time below target.t_max"),
        (["generator.ratio=norm_ema", "generator.norm_floor=0"], "norm_floor above 0"),
        (["reference.kind=ema", "surrogate.ema=0", "surrogate.kl=1"], "kl_anchor = 'reference'"),
        (["method=direct_rl", "generator.ratio=norm_ema"], "set generator.ratio = 'fixed'"),
        (
            ["method=frozen_surrogate", "reference.kind=ema", "surrogate.ema=0"],
            "set reference.kind = 'static'",
        ),
        (["method=dgpo_then_distil", "dgpo.iterations=400"], "lower dgpo.iterations"),
        (["rollout.k_steps=16", "rollout.flow_shift=6"], "lower rollout.flow_shift"),
        (["surrogate.target=bridge", "target.t_min_gap=0"], "surrogate.target.*singular"),
        (["surrogate.drift=0.05", "surrogate.kl=0"], "set surrogate.kl"),
        (["rollout.solver=dpmsolver++", "rollout.mode=stochastic"], "rollout.solver = 'euler'"),
        (["target.draws=5"], "different steps"),
        (
            ["generator.phi_cfg=2", "reference.kind=ema", "surrogate.ema=0"],
            "generator.form = 'mixture'",
        ),
        (["generator.phi_t_min=0.99"], "no time below target.t_max"),
        (["rollout.k_steps=60", "generator.t_range=segment"], "t_range"),
    ],
)
def test_combinations_that_cannot_train_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, overrides)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*absent\.toml"):
        load_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML"):
        load_config(broken)


def test_a_configuration_survives_its_own_json() -> None:
    config = load_config(Path("trainer/configs/tiny.toml"))
    assert Config.model_validate_json(config.model_dump_json()) == config
