"""The plan counts what training does: its passes, its bytes; and it names the key to change."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.fakes import build_sd3_folder
from tests.support.small_backbone import Recording, rolled_out, small_config
from tests.support.small_updates import scored
from tests.support.tiny_pipelines import FAMILIES, SIDE, TEXT, Family, written
from trainer.cli import main
from trainer.config import ComputeConfig, Config, load_config
from trainer.doctor.memory import memory_findings
from trainer.models.backbones import Conditioning, load_backbone
from trainer.models.lora_files import LoraSpec
from trainer.models.networks import Networks
from trainer.planning.passes import passes, roles, trained_roles
from trainer.planning.plan import SPARE, Gpu, plan
from trainer.planning.shapes import costs
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.surrogate import update_surrogate

RECIPES = [
    (),
    ("compute.micro_batch=3",),
    ("compute.micro_batch=4", "fake.updates=2"),
    ("recipe=authors", "groups.size=4", "groups.per_step=2", "lora.rank=2", "groups.dead_std=1e-9"),
    ("generator.phi_cfg=2",),
    ("reference.kind=ema", "surrogate.ema=0", "surrogate.kl_anchor=reference"),
    (
        "target.draws=2",
        "generator.form=mixture",
        "generator.phi_cfg=2",
        "fake.anchor=0.1",
        "surrogate.clip=0.1",
        "surrogate.clip_from=old",
    ),
]


@pytest.mark.parametrize("overrides", RECIPES)
def test_passes_are_those_of_an_iteration(overrides: tuple[str, ...]) -> None:
    config = small_config(*overrides)
    state = Recording(config)
    batch = rolled_out(state)
    counted: Counter[str] = Counter()
    phase, velocity = "", state.backbone.velocity

    def counting(x_t: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        counted[phase] += len(x_t) * (2 if torch.is_grad_enabled() else 1)
        return velocity(x_t, t, condition)

    state.backbone.velocity = counting  # type: ignore[method-assign]
    phase = "rollout"
    batch = rolled_out(state)
    phase = "surrogate"
    update_surrogate(state, scored(batch), 0, 0.0)
    phase = "fake score"
    update_fake(state, batch, 0, 0.0)
    phase = "generator"
    update_generator(state, batch, 0, 0.0, rewarded=True)
    assert {k: n / batch.samples for k, n in counted.items()} == passes(config)
    assert roles(config) == len(state.networks.specs)
    assert trained_roles(config) == len(state.optimizers)


def configured(folder: Path, *overrides: str) -> Config:
    fixed = [f"model.path={folder}", f"model.max_sequence_length={TEXT}", "lora.rank=2"]
    return load_config(None, [*fixed, *overrides])


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sd3_folder(tmp_path_factory.mktemp("plan") / "model", t5=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_bytes_are_those_of_the_loaded_model(family: Family, tmp_path: Path) -> None:
    config = configured(written(family, tmp_path / "model"), f"model.resolution={SIDE}")
    cost = costs(config)
    backbone = load_backbone(config.model, ComputeConfig(device="cpu", dtype="bf16"))
    own = (*backbone.network.parameters(), *backbone.network.buffers())
    assert cost.network == sum(p.numel() for p in own) * 2
    assert cost.latent == torch.Size(backbone.latent_shape).numel()
    assert cost.pixels == SIDE**2
    networks = Networks(backbone)
    networks.add("generator", LoraSpec(2, 2.0, backbone.default_lora_targets))
    assert cost.adapter == sum(p.numel() for p in networks.parameters("generator"))
    assert cost.forward > 2 * cost.network  # each weight is used at least once, by two operations
    border, inside = cost.kept_by_block
    assert 0 < border + inside < cost.kept


def test_each_key_takes_from_its_own_part(sd3: Path) -> None:
    config = configured(sd3, "groups.size=8", "groups.per_step=4")
    cost = costs(config)
    whole = plan(config, cost)

    def part(name: str, override: str) -> float:
        changed = configured(sd3, "groups.size=8", "groups.per_step=4", override)
        return plan(changed, cost).memory[name]

    assert part("activations", "compute.micro_batch=4") < whole.memory["activations"] / 4
    assert part("activations", "compute.checkpointing=true") < whole.memory["activations"]
    assert part("text encoders", "compute.text_encoders=keep") == cost.text_encoders
    assert whole.memory["text encoders"] == 0
    assert part("trajectories", "server.window=0") < whole.memory["trajectories"]


def test_the_doctor_names_the_key_that_makes_it_fit(sd3: Path) -> None:
    config = configured(sd3)
    cost = costs(config)
    needed = plan(config, cost).total
    fits = Gpu("a card", (needed + 1) / (1 - SPARE), 1.0)
    assert [f.status for f in memory_findings(config, lambda: fits)] == ["ok"]
    small = dataclasses.replace(fits, memory=(needed - 1) / (1 - SPARE))
    (finding,) = memory_findings(config, lambda: small)
    assert finding.status == "fail"
    assert finding.remedy.startswith("--set compute.micro_batch=")
    changed = load_config(None, [finding.remedy.removeprefix("--set ")]).compute
    assert plan(config.model_copy(update={"compute": changed}), cost).fits(small)
    assert memory_findings(config, lambda: None) == []


def test_the_command_prints_parts_phases_and_cards(
    sd3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--set", f"model.path={sd3}"]) == 0
    printed = capsys.readouterr().out
    for word in ("frozen base", "trajectories", "generator", "H200", "disk", "yes"):
        assert word in printed
