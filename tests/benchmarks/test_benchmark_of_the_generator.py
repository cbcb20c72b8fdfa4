"""Promise: it can be seen which step of a run's generator lags behind what its phi knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.generator import main
from trainer.arithmetic.randomness import normal
from trainer.config import Config, load_config
from trainer.models.backbones import load_backbone
from trainer.models.lora_files import write_lora
from trainer.models.networks import build_networks
from trainer.run.state import BEST, CONFIG, PHI

VALUES = (
    "groups.size=2",
    "groups.per_step=4",
    "compute.threads=1",
    "fake.updates=1",
    "generator.ema=0",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose generator is the start, and whose phi says something."""
    config: Config = load_config(Path("trainer/configs/tiny.toml"), VALUES)
    backbone = load_backbone(config.model, config.compute)
    networks = build_networks(backbone, config)
    for name, tensor in networks.tensors("surrogate").items():
        tensor.add_(0.04 * normal(tuple(tensor.shape), 0, name))
    networks.changed("surrogate")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / CONFIG).write_text(config.model_dump_json())
    for role, place in (("generator", BEST), ("surrogate", PHI)):
        write_lora(folder / place, networks.lora(role))  # type: ignore[arg-type]
    return folder


def test_steps_and_followers_are_measured_on_the_same_pictures(run: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    plans = ("--plan", "SSSS", "GSSS", "TSSS")
    variants = ("--variant", "again", "--variant", "no rate", "generator.lr=1e-30")
    variants += ("--variant", "far", "generator.lr=1")
    sizes = ("--pictures", "32", "--follow", "2", "--strength", "12")
    assert main([str(run), *plans, *sizes, *variants, "--json", str(report)]) == 0
    found = {one["name"]: one for one in json.loads(report.read_text())}
    assert list(found) == [*plans[1:], "the start", "run", "again", "no rate", "far"]
    scores = {name: one["by_tag"] for name, one in found.items()}
    assert scores["SSSS"] == scores["the start"] == scores["no rate"]
    assert scores["run"] == scores["again"]
    assert all(set(tags) == set(scores["SSSS"]) for tags in scores.values())
    assert len({json.dumps(scores[name]) for name in ("SSSS", "GSSS", "TSSS")}) == 3
    assert found["far"]["overall"] < 0.5 * found["the start"]["overall"]
    assert found["run"]["seconds"] > 0 == found["the start"]["seconds"]


@pytest.mark.parametrize("plan", ["SSS", "SSSX"])
def test_a_plan_that_names_no_four_steps_is_refused(
    run: Path, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(run), "--plan", plan])
    assert f"--plan {plan}: give S, G or T for each of 4 steps" in capsys.readouterr().err
