"""Stage 4 of pretraining: the 4-step student and its fake score, distilled from the teacher by TDM.

The same update as TDM-R1 with no reward: the generator follows the KL direction alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer.arithmetic.randomness import normals
from trainer.baselines.tdm import TdmOnly
from trainer.config import Config, load_config
from trainer.models.backbones import load_backbone
from trainer.models.lora_files import write_lora
from trainer.models.networks import build_networks
from trainer.models.rollout import sampled
from trainer.tdm_r1.state import Batch, TrainState
from trainer.tiny.world import sample_prompt, sample_tag

SAVE_EVERY = 50


def distil(config_files: Sequence[Path], model: Path, work: Path, text_share: float) -> None:
    """Train the student; writes `model/student` and `model/fake`, resumes from `work`.

    config_files: one distillation each, which goes on from the one before. Prompts come from the
    whole world, held-out combinations included: the student stands for a published few-step model,
    whose training nobody filtered.
    """
    loras = {"student_lora": model / "student", "fake_lora": model / "fake"}
    start = [f'model.path="{model}"']
    for number, config_file in enumerate(config_files, start=1):
        config = load_config(config_file, start)
        state = _train(config, work / f"student-{number}.safetensors", text_share, config_file.stem)
        write_lora(loras["student_lora"], state.networks.lora("generator_ema"))
        write_lora(loras["fake_lora"], state.networks.lora("fake"))
        start = [f'model.path="{model}"', *(f'model.{k}="{v}"' for k, v in loras.items())]


def _train(config: Config, checkpoint: Path, text_share: float, name: str) -> TrainState:
    state = _state(config)
    method, start = TdmOnly(state), _restore(state, checkpoint)
    total = config.run.iterations
    for iteration in track(range(start, total), name, completed=start, total=total):
        batch = _fresh_batch(state, iteration, text_share)
        method.update(batch, None, iteration, iteration / total)
        if (iteration + 1) % SAVE_EVERY == 0 or iteration + 1 == total:
            _save(state, checkpoint, iteration + 1)
    return state


def _state(config: Config) -> TrainState:
    backbone = load_backbone(config.model, config.compute)
    return TrainState(backbone, build_networks(backbone, config), config)


def _fresh_batch(state: TrainState, iteration: int, text_share: float) -> Batch:
    config = state.config
    rng = random.Random(f"{config.run.seed}/{iteration}")
    count = config.groups.per_step
    prompts = [sample_prompt(sample_tag(text_share, rng), rng) for _ in range(count)]
    condition = state.backbone.encode([prompt.caption for prompt in prompts])
    keys = tuple(range(iteration * count, (iteration + 1) * count))
    noise = normals(
        state.backbone.latent_shape, [(config.run.seed, iteration, key, 0, "noise") for key in keys]
    )
    velocity = state.networks.velocity("generator")
    trajectory = sampled(velocity, noise.to(state.backbone.device), condition, config.rollout)
    return Batch(keys, 1, condition, trajectory)


def _save(state: TrainState, path: Path, iteration: int) -> None:
    partial = path.with_suffix(".partial")
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors().items()}
    save_file(tensors, partial, {"iteration": str(iteration)})
    partial.rename(path)


def _restore(state: TrainState, path: Path) -> int:
    if not path.exists():
        return 0
    state.load_tensors(load_file(path))
    with safe_open(path, framework="pt") as handle:
        return int(handle.metadata()["iteration"])
