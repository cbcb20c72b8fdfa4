"""The exported LoRA needs nothing of ours: a stock pipeline makes the trainer's own images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.fakes import build_sd3_folder
from trainer.config import ComputeConfig, Config
from trainer.errors import ModelError
from trainer.evaluation.policies import few_step
from trainer.evaluation.results import TRAINED
from trainer.export import export
from trainer.models.backbones import load_backbone
from trainer.models.lora_files import LoraSpec
from trainer.models.networks import Networks

PROMPTS = ["a red circle", "two blue squares", "a sign"]

STRANGER = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["trainer"] = sys.modules["shared"] = sys.modules["reward_server"] = None
import numpy, torch
readme, noise, prompts, out = sys.argv[1], sys.argv[2], sys.argv[3].split("|"), sys.argv[4]
block = open(readme).read().split("```python")[1].split("```")[0]
names = {}
exec(block, names)
pipe, call = names["pipe"], names["call"]
forwards = []
pipe.transformer.register_forward_hook(lambda *args: forwards.append(1))
latents = torch.from_numpy(numpy.load(noise))
images = pipe(prompts, latents=latents, output_type="np", **call).images
assert len(forwards) == 4, f"{len(forwards)} forwards"
numpy.save(out, images)
"""


def _networks(model: Path, *, alpha: float) -> Networks:
    backbone = load_backbone(Config().model.model_copy(update={"path": model}), ComputeConfig())
    networks = Networks(backbone)
    networks.add("generator_ema", LoraSpec(4, alpha, backbone.default_lora_targets))
    torch.manual_seed(1)
    for parameter in networks.parameters("generator_ema"):
        parameter.data.normal_(std=0.3)
    networks.changed("generator_ema")
    return networks


@pytest.mark.parametrize(
    ("alpha", "shift", "solver", "close"),
    [(4.0, 2.0, "euler", 2e-5), (8.0, 3.0, "euler", 2e-5), (4.0, 3.0, "dpmsolver++", 1e-2)],
)
def test_a_stranger_gets_the_trainers_images_in_four_forwards(
    tmp_path: Path, alpha: float, shift: float, solver: str, close: float
) -> None:
    model = build_sd3_folder(tmp_path / "model")
    networks = _networks(model, alpha=alpha)
    rollout = {"flow_shift": shift, "solver": solver}
    config = Config.model_validate({"model": {"path": model}, "rollout": rollout})
    out = export(networks.lora("generator_ema"), config, tmp_path / "lora")
    noise = torch.randn(3, *networks.backbone.latent_shape)
    np.save(tmp_path / "noise.npy", noise.numpy())
    policy = few_step(TRAINED, "generator_ema", networks, config.rollout)
    ours = policy.sample(noise, PROMPTS).permute(0, 2, 3, 1).numpy()

    files = [str(out / "README.md"), str(tmp_path / "noise.npy")]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER, *files, "|".join(PROMPTS), str(tmp_path / "theirs.npy")],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert stranger.returncode == 0, stranger.stderr
    theirs = np.load(tmp_path / "theirs.npy")
    # Their scheduler of second order tells the network its times in whole thousandths.
    np.testing.assert_allclose(theirs, ours, atol=close)
    plain = _without_lora(networks, config, noise)
    assert np.abs(plain - ours).max() > 0.01, "the LoRA changes nothing, so this proves nothing"


def _without_lora(networks: Networks, config: Config, noise: torch.Tensor) -> np.ndarray:
    base = few_step(TRAINED, "teacher", networks, config.rollout)
    return base.sample(noise, PROMPTS).permute(0, 2, 3, 1).numpy()


def test_a_folder_that_cannot_be_written_is_a_designed_error(tmp_path: Path) -> None:
    model = build_sd3_folder(tmp_path / "model")
    lora = _networks(model, alpha=4.0).lora("generator_ema")
    (tmp_path / "taken").write_text("a file")
    config = Config.model_validate({"model": {"path": model}})
    with pytest.raises(ModelError, match=r"taken.*--out"):
        export(lora, config, tmp_path / "taken")
