"""The paper's baselines: which roles they train, from which samples, along which direction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.fakes import FunctionServer, brightness
from tests.support.small_backbone import Recording, rolled_out, small_config
from tests.support.small_runs import cut_short, final_state, same_bits, small_run, trained
from tests.support.small_updates import ITERATION, REWARDS, naive_preference, scored
from trainer.baselines.direct_rl import DirectRl
from trainer.baselines.phi_first import DgpoThenDistil, FrozenSurrogate, PhiFirst
from trainer.baselines.tdm import TdmOnly
from trainer.models.networks import Role
from trainer.models.rollout import sample_guided
from trainer.run.log import read_metrics
from trainer.tdm_r1.state import Batch
from trainer.tdm_r1.update import FewStep


def changed(method: FewStep, before: dict[Role, str]) -> set[Role]:
    networks = method.state.networks
    return {role for role in networks.specs if networks.fingerprint(role) != before[role]}


def prints(method: FewStep) -> dict[Role, str]:
    networks = method.state.networks
    return {role: networks.fingerprint(role) for role in networks.specs}


def generator_gradient(rho: float) -> list[torch.Tensor]:
    config = small_config("method=direct_rl", f"generator.rho={rho}", "surrogate.beta=3")
    state = Recording(config)
    batch = rolled_out(state)
    DirectRl(state).update(batch, scored(batch), ITERATION, 0.0)
    return state.gradients["generator"]


def test_direct_rl_adds_the_preference_loss_of_the_generator_to_its_tdm_loss() -> None:
    tdm, both = generator_gradient(0.0), generator_gradient(0.5)
    state = Recording(small_config("method=direct_rl", "surrogate.beta=3"))
    batch = rolled_out(state)
    loss = naive_preference(state, batch, REWARDS, "generator", "direct_rl")
    preference = torch.autograd.grad(loss, state.networks.parameters("generator"))
    expected = [a + 0.5 * b for a, b in zip(tdm, preference, strict=True)]
    torch.testing.assert_close(both, expected, atol=2e-6, rtol=2e-4)
    assert all(float(g.abs().max()) > 1e-5 for g in preference)


@pytest.mark.parametrize(
    ("kind", "moving"),
    [
        ("static", {"generator", "generator_ema", "fake"}),
        ("ema", {"generator", "generator_ema", "fake", "reference"}),
    ],
)
def test_direct_rl_has_no_surrogate_and_trains_nothing_on_late_groups(
    kind: str, moving: set[Role]
) -> None:
    state = Recording(small_config("method=direct_rl", f"reference.kind={kind}"))
    method, batch = DirectRl(state), rolled_out(state)
    assert "surrogate" not in state.networks.specs
    before = prints(method)
    assert method.update(None, scored(batch), ITERATION, 0.0) == {}
    assert changed(method, before) == set()
    metrics = method.update(batch, scored(batch), ITERATION, 0.0)
    assert changed(method, before) == moving
    assert {"loss/direct_rl", "loss/generator", "loss/fake", "reward/mean"} <= metrics.keys()


def phi_first(kind: type[PhiFirst], *overrides: str) -> PhiFirst:
    name = "frozen_surrogate" if kind is FrozenSurrogate else "dgpo_then_distil"
    few = ("dgpo.iterations=3", "dgpo.steps=5", "surrogate.ema=0.5")
    return kind(Recording(small_config(f"method={name}", *few, *overrides)))


@pytest.mark.parametrize("kind", [FrozenSurrogate, DgpoThenDistil])
def test_phase_one_trains_phi_alone_on_clean_samples_of_its_own(kind: type[PhiFirst]) -> None:
    method = phi_first(kind)
    state, few_step = method.state, rolled_out(method.state)
    noise, condition = few_step.trajectory.states[0], few_step.condition.repeat(few_step.size)
    trajectory = method.sample(noise, condition, None, iteration=2)
    own, nfe = sample_guided(
        state.networks.velocity("surrogate"),
        noise,
        condition,
        state.uncondition,
        steps=5,
        shift=2.0,
        guidance=2.0,
        rule=state.backbone.guidance,
    )
    assert torch.equal(trajectory.final, own)
    assert trajectory.nfe == nfe == 10
    batch = Batch(few_step.keys, few_step.size, few_step.condition, trajectory)
    draw = state.draw(batch, 2, "surrogate.0", "full", shared=True)
    assert draw.step.s.abs().max() == 0
    torch.testing.assert_close(state.target(draw).v_star, draw.e - own)
    before = prints(method)
    metrics = method.update(few_step, scored(batch), 2, 0.0)
    assert changed(method, before) == {"surrogate", "surrogate_ema"}
    assert metrics["surrogate/pairs"] == 6 + 3


@pytest.mark.parametrize("kind", [FrozenSurrogate, DgpoThenDistil])
def test_phase_two_trains_the_generator_on_its_own_rollouts_and_leaves_phi(
    kind: type[PhiFirst],
) -> None:
    method = phi_first(kind)
    assert [method.uses_rewards(i) for i in (2, 3)] == [True, False]
    few_step = rolled_out(method.state)
    noise, condition = few_step.trajectory.states[0], few_step.condition.repeat(few_step.size)
    trajectory = method.sample(noise, condition, None, iteration=3)
    assert torch.equal(trajectory.states, few_step.trajectory.states)
    before = prints(method)
    method.update(few_step, None, 3, 0.0)
    assert changed(method, before) == {"generator", "generator_ema", "fake"}
    with pytest.raises(ValueError, match="fresh rollouts"):
        method.update(None, None, 3, 0.0)


def test_a_frozen_surrogate_pulls_with_what_phi_has_learned() -> None:
    method = phi_first(FrozenSurrogate, "generator.warmup=1", "generator.ratio_cap=1e9")
    batch = rolled_out(method.state)
    assert "force/reward" not in method.update(batch, None, 3, 0.0)
    metrics = method.update(batch, None, 4, 0.0)
    assert metrics["force/reward"] > 0
    method.state.networks.copy("surrogate_ema", "generator")
    other = method.update(batch, None, 4, 0.0)
    assert other["force/reward"] != pytest.approx(metrics["force/reward"], rel=1e-3)


def test_distillation_leads_to_phi_and_no_longer_to_the_base() -> None:
    method = phi_first(DgpoThenDistil, "generator.teacher_cfg=1", "fake.lr=1e-12")
    networks, batch = method.state.networks, rolled_out(method.state)
    networks.copy("fake", "surrogate_ema")
    arrived = method.update(batch, None, 3, 0.0)
    assert arrived["force/kl"] == pytest.approx(0.0, abs=1e-5)
    base = TdmOnly(method.state).update(batch, None, 3, 0.0)
    assert base["force/kl"] > 0.01


@pytest.mark.parametrize("method", ["direct_rl", "frozen_surrogate", "dgpo_then_distil"])
def test_a_baseline_trains_and_resumes_to_the_same_bits(
    model: Path, tmp_path: Path, method: str
) -> None:
    server = FunctionServer(brightness)
    short = ("dgpo.iterations=2", "dgpo.steps=2", "server.window=0", "run.iterations=4")
    whole = small_run(model, tmp_path, f"method={method}", "run.name=whole", *short)
    parts = small_run(model, tmp_path, f"method={method}", "run.name=parts", *short)
    expected = final_state(trained(whole, server), 4)
    trained(cut_short(parts, 3), server)
    folder = trained(parts, server, resume=True)
    assert same_bits(final_state(folder, 4), expected)
    rewarded = ["reward/mean" in row for row in read_metrics(folder)[:4]]
    assert rewarded == ([True] * 4 if method == "direct_rl" else [True, True, False, False])
