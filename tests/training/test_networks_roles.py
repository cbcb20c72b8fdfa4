"""Roles are adapters on one base: isolated from each other, cheap to switch, true to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from trainer.arithmetic.flow import time_grid
from trainer.arithmetic.randomness import normals
from trainer.config import Config, RolloutConfig, load_config
from trainer.errors import ModelError
from trainer.evaluation.policies import few_step
from trainer.evaluation.results import TRAINED
from trainer.models.backbones import Backbone, Conditioning, load_backbone
from trainer.models.lora_files import LoraSpec, read_lora, write_lora
from trainer.models.networks import Networks, Role, Source, build_networks
from trainer.models.rollout import rollout
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import Batch, ScoredBatch, TrainState
from trainer.tdm_r1.surrogate import update_surrogate
from trainer.tdm_r1.update import TdmR1

ROLES: tuple[Source, ...] = (
    "teacher",
    "generator",
    "generator_ema",
    "surrogate",
    "surrogate_ema",
    "reference",
    "fake",
)


def config_for(model: Path, *overrides: str) -> Config:
    base = [f"model.path={model}", "lora.rank=2", "groups.size=3", "groups.dead_std=1e-9"]
    return load_config(None, [*base, *overrides])


def all_roles(model: Path, *overrides: str) -> TrainState:
    config = config_for(
        model, "reference.kind=ema", "reference.decay=0.9", "surrogate.ema=0.5", *overrides
    )
    backbone = load_backbone(config.model, config.compute)
    networks = build_networks(backbone, config)
    for role in networks.specs:  # away from the start, where B = 0 and all roles agree
        for k, parameter in enumerate(networks.parameters(role)):
            noise = normals(parameter.shape, [("test", role, k)])[0]
            parameter.data.add_(0.2 * noise)
        networks.changed(role)
    return TrainState(backbone, networks, config)


def a_batch(state: TrainState) -> Batch:
    condition = state.backbone.encode(["a red star", "a blue star"])
    noise = normals(state.backbone.latent_shape, [("noise", i) for i in range(6)])
    velocity = state.networks.velocity("generator")
    trajectory = rollout(velocity, noise, condition.repeat(3), time_grid(4, 2.0))
    return Batch((0, 1), 3, condition, trajectory)


def scored(batch: Batch) -> ScoredBatch:
    rewards = torch.tensor([[0.0, 0.5, 1.0], [1.0, float("nan"), 0.2]])
    return ScoredBatch(batch, rewards, ("a", "a"))


def inputs(backbone: Backbone, batch: int = 4) -> tuple[Tensor, Tensor, Any]:
    x = normals(backbone.latent_shape, [("x", i) for i in range(batch)])
    return x, torch.linspace(0.1, 0.9, batch), backbone.encode(["a star"] * batch)


def test_each_update_changes_its_role_and_its_averages_only(model: Path) -> None:
    state = all_roles(model)
    networks, batch = state.networks, a_batch(state)
    allowed: dict[str, set[Source]] = {
        "surrogate": {"surrogate", "surrogate_ema", "reference"},
        "fake": {"fake"},
        "generator": {"generator", "generator_ema"},
    }
    updates: dict[str, Callable[[], object]] = {
        "surrogate": lambda: update_surrogate(state, scored(batch), 0, 0.0),
        "fake": lambda: update_fake(state, batch, 0, 0.0),
        "generator": lambda: update_generator(state, batch, 0, 0.0, rewarded=True),
    }
    for name, update in updates.items():
        before = {role: networks.fingerprint(role) for role in ROLES}
        update()
        changed = {role for role in ROLES if networks.fingerprint(role) != before[role]}
        assert changed == allowed[name], name
        for role in networks.specs:
            assert all(p.grad is None for p in networks.parameters(role)), (name, role)


def test_while_the_generator_stands_still_so_may_its_score(model: Path) -> None:
    state = all_roles(model, "generator.frozen=2", "generator.warmup=2", "fake.frozen=1")
    networks, batch, changed = state.networks, a_batch(state), list[set[Source]]()
    for iteration in range(3):
        before = {role: networks.fingerprint(role) for role in ROLES}
        TdmR1(state).update(batch, scored(batch), iteration, 0.0)
        changed.append({role for role in ROLES if networks.fingerprint(role) != before[role]})
    phi: set[Source] = {"surrogate", "surrogate_ema", "reference"}
    assert changed == [phi, phi | {"fake"}, phi | {"fake", "generator", "generator_ema"}]


def test_the_teacher_is_the_untouched_base(model: Path) -> None:
    plain = load_backbone(config_for(model).model, config_for(model).compute)
    state = all_roles(model)
    args = inputs(state.backbone)
    with torch.no_grad():
        expected = plain.velocity(*args)
        state.networks.velocity("generator")(*args)
        assert torch.equal(state.networks.velocity("teacher")(*args), expected)


def test_a_new_role_starts_as_the_teacher(model: Path) -> None:
    config = config_for(model)
    backbone = load_backbone(config.model, config.compute)
    networks = build_networks(backbone, config)
    args = inputs(backbone)
    with torch.no_grad():
        teacher = networks.velocity("teacher")(*args)
        for role in networks.specs:
            assert torch.equal(networks.velocity(role)(*args), teacher), role


def test_folding_an_adapter_changes_neither_outputs_nor_gradients(model: Path) -> None:
    folded, plain = all_roles(model), all_roles(model, "compute.fold_adapters=never")
    results = []
    for state in (folded, plain):
        v = state.networks.velocity("generator")(*inputs(state.backbone))
        torch.autograd.backward(v.square().mean())
        gradients = [p.grad for p in state.networks.parameters("generator")]
        with torch.no_grad():
            again = state.networks.velocity("generator")(*inputs(state.backbone))
        results.append((v.detach(), again, gradients))
    (v1, again1, g1), (v2, again2, g2) = results
    torch.testing.assert_close(v1, v2, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(again1, again2, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(g1, g2, atol=2e-6, rtol=1e-3)


def test_folded_weights_follow_the_adapter(model: Path) -> None:
    state = all_roles(model)
    networks, args = state.networks, inputs(state.backbone)
    with torch.no_grad():
        before = networks.velocity("fake")(*args)
    update_fake(state, a_batch(state), 0, 0.0)
    with torch.no_grad():
        assert not torch.equal(networks.velocity("fake")(*args), before)
        networks.copy("fake", "generator")
        expected = networks.velocity("generator")(*args)
        assert torch.equal(networks.velocity("fake")(*args), expected)


def test_a_graph_built_before_a_switch_keeps_its_weights(model: Path) -> None:
    state = all_roles(model)
    networks, args = state.networks, inputs(state.backbone)
    alone = networks.velocity("generator")(*args).square().mean()
    torch.autograd.backward(alone)
    expected = [p.grad for p in networks.parameters("generator")]
    for p in networks.parameters("generator"):
        p.grad = None
    loss = networks.velocity("generator")(*args).square().mean()
    with torch.no_grad():
        for role in ROLES:
            networks.velocity(role)(*args)
    torch.autograd.backward(loss)
    torch.testing.assert_close([p.grad for p in networks.parameters("generator")], expected)


def test_switching_roles_moves_no_weights(model: Path) -> None:
    networks = all_roles(model, "compute.fold_adapters=never").networks

    def places() -> list[int]:
        return [p.data_ptr() for role in ROLES for p in networks.parameters(role)]

    before = places()
    assert len(set(before)) == len(before)
    for role in ROLES:
        with networks.acting_as(role):
            assert places() == before
    assert places() == before


def test_an_average_moves_by_its_decay(model: Path) -> None:
    networks = all_roles(model).networks
    old = [p.clone() for p in networks.parameters("generator_ema")]
    new = networks.parameters("generator")
    networks.average("generator_ema", "generator", 0.9)
    for a, b, c in zip(networks.parameters("generator_ema"), old, new, strict=True):
        torch.testing.assert_close(a, 0.9 * b + 0.1 * c)


@pytest.mark.parametrize("alpha", [2.0, 5.0])
def test_a_written_lora_means_the_same_to_a_stock_pipeline(
    model: Path, tmp_path: Path, alpha: float
) -> None:
    state = all_roles(model, f"lora.alpha={alpha}")
    networks, args = state.networks, inputs(state.backbone)
    write_lora(tmp_path / "lora", networks.lora("generator"))
    untyped: Any = diffusers
    pipeline = untyped.StableDiffusion3Pipeline.from_pretrained(
        str(model), text_encoder_3=None, tokenizer_3=None
    )
    pipeline.load_lora_weights(str(tmp_path / "lora"))
    x, t, condition = args
    with torch.no_grad():
        stock = pipeline.transformer(
            hidden_states=x,
            timestep=1000 * t,
            encoder_hidden_states=condition["tokens"],
            pooled_projections=condition["pooled"],
        ).sample
        ours = networks.velocity("generator")(*args)
    torch.testing.assert_close(ours, stock, atol=2e-6, rtol=1e-4)


def test_student_and_fake_start_from_their_files(model: Path, tmp_path: Path) -> None:
    first = all_roles(model).networks
    write_lora(tmp_path / "student", first.lora("generator"))
    write_lora(tmp_path / "fake", first.lora("fake"))
    config = config_for(
        model,
        f"model.student_lora={tmp_path / 'student'}",
        f"model.fake_lora={tmp_path / 'fake'}",
        "lora.rank=7",
    )
    networks = build_networks(load_backbone(config.model, config.compute), config)
    files: tuple[tuple[Role, Role], ...] = (
        ("generator", "generator"),
        ("generator_ema", "generator"),
        ("fake", "fake"),
    )
    for role, source in files:
        assert networks.fingerprint(role) == first.fingerprint(source)
        assert networks.specs[role].rank == 2
    assert networks.specs["surrogate"].rank == 7
    config = config_for(model, f"model.student_lora={tmp_path / 'student'}")
    networks = build_networks(load_backbone(config.model, config.compute), config)
    assert networks.fingerprint("fake") == first.fingerprint("generator")


def test_roles_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    config = config_for(model)
    networks = Networks(load_backbone(config.model, config.compute))
    with pytest.raises(ModelError, match=r"'attn.to_x' names no linear layer.*attn\.to_q"):
        networks.add("generator", LoraSpec(2, 2.0, ("attn.to_x",)))
    with pytest.raises(ModelError, match="no readable LoRA"):
        read_lora(tmp_path)
    networks.add("generator", LoraSpec(2, 2.0, ("attn.to_q",)))
    other = {k: t[:1] for k, t in networks.tensors("generator").items()}
    with pytest.raises(ModelError, match=r"has shape .* set lora\.rank"):
        networks.load_tensors("generator", other)


@pytest.mark.parametrize("limit", [1, 2, 3])  # groups have three samples
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    model: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = all_roles(model), all_roles(model, f"compute.micro_batch={limit}")
    held: list[int] = []
    velocity = parts.backbone.velocity

    def noted(x_t: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        held.append(len(t))
        return velocity(x_t, t, condition)

    monkeypatch.setattr(parts.backbone, "velocity", noted)
    rewards = scored(a_batch(whole))
    for state in (whole, parts):
        batch = a_batch(state)
        update_surrogate(state, ScoredBatch(batch, rewards.rewards, rewards.names), 0, 0.0)
        update_fake(state, batch, 0, 0.0)
        update_generator(state, batch, 0, 0.0, rewarded=True)
    assert set(held) <= set(range(1, limit + 1))
    for role in whole.networks.specs:
        torch.testing.assert_close(
            whole.networks.parameters(role), parts.networks.parameters(role), atol=1e-5, rtol=1e-3
        )


@pytest.mark.parametrize(
    "overrides",
    [
        ["reference.kind=static"],
        ["reference.kind=ema", "surrogate.ema=0", "surrogate.kl_anchor=reference"],
        ["surrogate.updates=2"],
        ["target.kind=bridge", "surrogate.clip=0.01"],
        ["generator.ratio=norm_ema", "generator.t_range=segment", "fake.t_range=segment"],
        ["groups.advantage_std=batch", "surrogate.kl=0"],
        ["surrogate.t_range=segment", "fake.updates=2"],
        ["surrogate.weighting=flow"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_every_switch_trains(model: Path, overrides: list[str]) -> None:
    config = config_for(model, *overrides)
    backbone = load_backbone(config.model, config.compute)
    state = TrainState(backbone, build_networks(backbone, config), config)
    for parameter in state.networks.parameters("surrogate"):
        parameter.data.add_(0.1)
    batch = a_batch(state)
    metrics = update_surrogate(state, scored(batch), 0, 0.0)
    metrics |= update_fake(state, batch, 0, 0.0)
    metrics |= update_generator(state, batch, 0, 0.0, rewarded=True)
    assert metrics["force/reward"] > 0
    for role in ("surrogate", "fake", "generator"):
        assert metrics[f"grad_norm/{role}"] > 0, role


def test_a_generator_is_measured_by_the_sampler_it_was_trained_with(model: Path) -> None:
    networks = all_roles(model).networks
    noise = normals(networks.backbone.latent_shape, [("start", i) for i in range(3)])
    prompts = ["a red star", "a blue star", "a star"]
    stochastic = few_step(TRAINED, "generator", networks, RolloutConfig(mode="stochastic"))
    plain = few_step(TRAINED, "generator", networks, RolloutConfig())
    drawn = stochastic.sample(noise, prompts)
    assert not torch.allclose(drawn, plain.sample(noise, prompts), atol=1e-3)
    alone = stochastic.sample(noise[2:], prompts[2:])
    torch.testing.assert_close(drawn[2:], alone, atol=1e-5, rtol=0)


def test_in_bf16_the_base_is_cast_and_adapters_stay_fp32(model: Path) -> None:
    state, exact = all_roles(model, "compute.dtype=bf16"), all_roles(model)
    networks = state.networks
    untyped: Any = state.backbone.network
    assert untyped.transformer_blocks[0].attn.to_q.base_layer.weight.dtype == torch.bfloat16
    assert {p.dtype for role in networks.specs for p in networks.parameters(role)} == {
        torch.float32
    }
    x, t, condition = inputs(state.backbone)
    v = networks.velocity("generator")(x, t, condition)
    assert v.dtype == torch.float32
    expected = exact.networks.velocity("generator")(x, t, condition)
    torch.testing.assert_close(v, expected, atol=0.05, rtol=0.05)
    batch = a_batch(state)
    metrics = update_surrogate(state, scored(batch), 0, 0.0)
    metrics |= update_fake(state, batch, 0, 0.0)
    metrics |= update_generator(state, batch, 0, 0.0, rewarded=True)
    for role in ("surrogate", "fake", "generator"):
        assert metrics[f"grad_norm/{role}"] > 0
