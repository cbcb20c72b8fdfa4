"""Every backbone is its stock pipeline: same text, same pictures, and it loads what we trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.fakes import FunctionServer, brightness
from tests.support.small_runs import small_run, trained
from tests.support.tiny_pipelines import FAMILIES, SIDE, TEXT, UNTYPED, Family, written
from trainer.arithmetic.flow import time_grid
from trainer.arithmetic.randomness import normal
from trainer.config import ComputeConfig, ModelConfig
from trainer.evaluation.policies import few_step
from trainer.evaluation.results import TRAINED
from trainer.export import export
from trainer.models.backbones import BACKBONES, load_backbone
from trainer.models.backbones.pipeline import PipelineBackbone
from trainer.models.lora_files import LoraSpec, read_lora
from trainer.models.networks import Networks
from trainer.models.rollout import rollout, sample_guided

PROMPTS = ["two red circles beside a very long green train", "a sign"]
SHIFT = 3.0


@dataclass(frozen=True)
class Pair:
    """A stock pipeline and the backbone of the same folder."""

    family: Family
    folder: Path
    stock: Any
    model: ModelConfig
    backbone: PipelineBackbone

    @property
    def noise(self) -> Tensor:
        shape = (len(PROMPTS), *self.backbone.latent_shape)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def pictures(self, steps: int, **call: Any) -> Tensor:
        """What the stock pipeline makes of our noise."""
        images: Tensor = self.stock(
            prompt=[*PROMPTS],  # some pipelines write into the list they are given
            num_inference_steps=steps,
            sigmas=[1 - j / steps for j in range(steps)],
            latents=self.family.packed(self.noise, self.stock),
            height=SIDE,
            width=SIDE,
            max_sequence_length=TEXT,
            output_type="pt",
            **call,
        ).images
        return images


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    family: Family = request.param
    folder = written(family, tmp_path_factory.mktemp(family.name) / "model")
    model = ModelConfig(path=folder, max_sequence_length=TEXT, resolution=SIDE)
    backbone = load_backbone(model, ComputeConfig(device="cpu"))
    assert isinstance(backbone, PipelineBackbone)
    stock = getattr(UNTYPED, backbone.pipeline_class).from_pretrained(str(folder))
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = UNTYPED.FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    return Pair(family, folder, stock, model, backbone)


def test_every_backbone_is_proven() -> None:
    assert set(BACKBONES) == {"sd3", *(family.name for family in FAMILIES)}


def test_the_folder_says_which_backbone_it_is(pair: Pair) -> None:
    assert pair.backbone.name == pair.family.name


def test_a_rollout_gives_the_pipelines_pictures(pair: Pair) -> None:
    backbone = pair.backbone
    condition = backbone.encode(PROMPTS)
    final = rollout(backbone.velocity, pair.noise, condition, time_grid(4, SHIFT)).final
    expected = pair.pictures(4, **backbone.stock_call(pair.model))
    assert expected.std() > 0.01
    torch.testing.assert_close(backbone.decode(final), expected, atol=5e-5, rtol=0)


def test_guidance_gives_the_pipelines_pictures(pair: Pair) -> None:
    backbone = pair.backbone
    latents, nfe = sample_guided(
        backbone.velocity,
        pair.noise,
        backbone.encode(PROMPTS),
        backbone.encode_unconditional(),
        steps=3,
        shift=SHIFT,
        guidance=3.0,
        rule=backbone.guidance,
    )
    assert nfe == 3 * backbone.guidance.evaluations
    expected = pair.pictures(3, **pair.family.guided(3.0))
    torch.testing.assert_close(backbone.decode(latents), expected, atol=1e-4, rtol=0)


def test_a_prompt_is_encoded_the_same_in_any_company(pair: Pair) -> None:
    backbone = pair.backbone
    together, noise = backbone.encode(PROMPTS), pair.noise
    t = torch.full((len(PROMPTS),), 0.5)
    alone = [backbone.encode([prompt]) for prompt in PROMPTS]
    joined = type(together).cat(alone)
    assert joined.lengths == together.lengths
    with torch.no_grad():
        expected = backbone.velocity(noise, t, together)
        torch.testing.assert_close(backbone.velocity(noise, t, joined), expected)
        for i, row in enumerate(alone):
            part = slice(i, i + 1)
            v = backbone.velocity(noise[part], t[part], row)
            torch.testing.assert_close(v, expected[part], atol=1e-5, rtol=1e-4)


def test_checkpointing_gives_the_same_gradient_in_less_memory(pair: Pair) -> None:
    backbone = load_backbone(pair.model, ComputeConfig(device="cpu"))
    networks = Networks(backbone, checkpointing=True)
    for role in ("generator", "fake"):  # the other one must not be taken for it
        networks.add(role, LoraSpec(2, 2.0, backbone.default_lora_targets))
        for k, parameter in enumerate(networks.parameters(role)):
            parameter.data.copy_(0.3 * normal(parameter.shape, role, k))
    noise, condition = pair.noise, backbone.encode(PROMPTS)
    t = torch.full((len(PROMPTS),), 0.5)

    def gradient() -> tuple[list[Tensor], int]:
        with saved_bytes() as saved:
            loss = networks.velocity("generator")(noise, t, condition).square().mean()
        networks.velocity("fake")(noise, t, condition)
        parameters = networks.parameters("generator")
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return list(found), sum(saved.values())

    again, little = gradient()
    untyped: Any = backbone.network
    untyped.disable_gradient_checkpointing()
    kept, much = gradient()
    torch.testing.assert_close(again, kept, atol=1e-6, rtol=1e-4)
    assert max(float(g.abs().max()) for g in kept) > 0
    assert little < 0.7 * much


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Bytes of what is kept for the gradient, by storage."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield saved


def test_what_is_trained_is_loaded_by_the_stock_pipeline(pair: Pair, tmp_path: Path) -> None:
    config = small_run(
        pair.folder,
        tmp_path,
        f"model.resolution={SIDE}",
        f"model.max_sequence_length={TEXT}",
        "compute.device=cpu",
        "compute.micro_batch=4",
        f"rollout.flow_shift={SHIFT}",
        "generator.lr=3e-2",
        "generator.ema=0",
    )
    run = trained(config, FunctionServer(brightness))
    lora = read_lora(run / "last")
    networks = Networks(pair.backbone)
    networks.add_lora("generator_ema", lora)
    out = export(lora, config, tmp_path / "lora")
    block = (out / "README.md").read_text().split("```python")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(block, names)
    latents = pair.family.packed(pair.noise, pair.stock)
    theirs = names["pipe"](
        prompt=[*PROMPTS], latents=latents, output_type="pt", **names["call"]
    ).images

    policy = few_step(TRAINED, "generator_ema", networks, config.rollout)
    torch.testing.assert_close(policy.sample(pair.noise, PROMPTS), theirs, atol=5e-5, rtol=0)
    plain = few_step(TRAINED, "teacher", networks, config.rollout).sample(pair.noise, PROMPTS)
    change = float((plain - theirs).abs().max())
    assert math.isfinite(change)
    assert change > 1e-3, "the LoRA changes nothing, so this proves nothing"
