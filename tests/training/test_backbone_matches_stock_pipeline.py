"""The backbone is the stock pipeline: same text, same velocity, same images, for any SD3 folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from tests.support.fakes import build_sd3_folder
from trainer.arithmetic.flow import time_grid
from trainer.config import ComputeConfig, ModelConfig
from trainer.errors import ModelError
from trainer.models.backbones import load_backbone
from trainer.models.rollout import rollout, sample_guided

PROMPTS = ["two red circles", "a sign that says 'kbq'", "a blue star"]


@pytest.fixture(scope="module", params=[False, True], ids=["two clips", "two clips and a t5"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sd3_folder(tmp_path_factory.mktemp("sd3") / "model", t5=request.param)


def stock(folder: Path) -> Any:
    index = json.loads((folder / "model_index.json").read_text())
    absent = {part: None for part, source in index.items() if source == [None, None]}
    untyped: Any = diffusers
    pipeline = untyped.StableDiffusion3Pipeline.from_pretrained(str(folder), **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("length", [1, 32])
def test_text_encoding_is_the_pipelines_own(folder: Path, length: int) -> None:
    backbone = load_backbone(ModelConfig(path=folder, max_sequence_length=length), ComputeConfig())
    with torch.no_grad():
        tokens, _, pooled, _ = stock(folder).encode_prompt(
            PROMPTS, None, None, do_classifier_free_guidance=False, max_sequence_length=length
        )
    got = backbone.encode(PROMPTS)
    assert torch.equal(got["tokens"], tokens)
    assert torch.equal(got["pooled"], pooled)


def test_four_step_rollout_gives_the_pipelines_image(folder: Path) -> None:
    backbone = load_backbone(ModelConfig(path=folder, max_sequence_length=8), ComputeConfig())
    noise = torch.randn(3, *backbone.latent_shape, generator=torch.Generator().manual_seed(1))
    expected = stock(folder)(
        PROMPTS,
        sigmas=[1, 0.75, 0.5, 0.25],  # the scheduler applies its shift of 2
        guidance_scale=0.0,
        latents=noise,
        height=32,
        width=32,
        max_sequence_length=8,
        output_type="pt",
    ).images
    trajectory = rollout(backbone.velocity, noise, backbone.encode(PROMPTS), time_grid(4, 2.0))
    assert trajectory.nfe == 4
    torch.testing.assert_close(backbone.decode(trajectory.final), expected, atol=2e-5, rtol=0)


def test_many_images_are_decoded_in_parts_and_come_out_the_same(folder: Path) -> None:
    backbone = load_backbone(ModelConfig(path=folder, max_sequence_length=8), ComputeConfig())
    latents = torch.randn(70, *backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    parts: list[int] = []
    backbone.pipeline.vae.decoder.register_forward_pre_hook(
        lambda _, inputs: parts.append(len(inputs[0]))
    )
    together = backbone.decode(latents)
    assert sum(parts) == 70
    assert max(parts) <= 2**15 / together[0, 0].numel()
    alone = torch.cat([backbone.decode(one[None]) for one in latents])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


def test_guided_sampling_gives_the_pipelines_image_and_counts_both_passes(folder: Path) -> None:
    backbone = load_backbone(ModelConfig(path=folder, max_sequence_length=8), ComputeConfig())
    noise = torch.randn(3, *backbone.latent_shape, generator=torch.Generator().manual_seed(2))
    expected = stock(folder)(
        PROMPTS,
        sigmas=[1 - j / 5 for j in range(5)],
        guidance_scale=3.0,
        latents=noise,
        height=32,
        width=32,
        max_sequence_length=8,
        output_type="pt",
    ).images
    calls = []
    handle = backbone.network.register_forward_hook(lambda *_: calls.append(1))
    latents, nfe = sample_guided(
        backbone.velocity,
        noise,
        backbone.encode(PROMPTS),
        backbone.encode_unconditional(),
        steps=5,
        shift=2.0,
        guidance=3.0,
        rule=backbone.guidance,
    )
    handle.remove()
    assert nfe == 10  # per image; both passes share one doubled batch
    assert len(calls) == 5
    torch.testing.assert_close(backbone.decode(latents), expected, atol=5e-5, rtol=0)


def test_nothing_in_the_base_is_trainable(folder: Path) -> None:
    backbone = load_backbone(ModelConfig(path=folder), ComputeConfig())
    assert not any(p.requires_grad for p in backbone.network.parameters())


def test_another_layout_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        load_backbone(ModelConfig(path=tmp_path), ComputeConfig())
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError, match="FluxPipeline"):
        load_backbone(ModelConfig(path=tmp_path), ComputeConfig())
