"""`python -m trainer pretrain`: makes the embedded model from nothing, in four stages.

VAE, text encoders (`captions.py`), the teacher (flow matching), then the 4-step student by TDM
(`student.py`). Each stage resumes from its own checkpoint in the work folder; the result is a stock
diffusers pipeline folder with the student and its fake score as LoRAs beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from trainer.config import Section
from trainer.config.reading import read_toml, validate
from trainer.pretraining.captions import TextEncoders, train_encoders
from trainer.pretraining.dataset import Dataset, Recipe, load_or_render
from trainer.pretraining.stage import Schedule, optimise
from trainer.pretraining.teacher import (
    Architecture,
    build_transformer,
    encode_captions,
    flow_matching_loss,
    save_pipeline,
)
from trainer.pretraining.vae import build_vae, calibrate, encode_all, to_unit, vae_loss
from trainer.tiny.scenes import SIDE

STAGES = ("vae", "captions", "teacher", "student")


class DataConfig(Section):
    images: int = 60_000
    size: int = SIDE
    text_share: float = 0.3
    wrong_captions: float = 0.25


class VaeConfig(Section):
    iterations: int = 1500
    batch: int = 64
    lr: float = 2e-3
    kl_weight: float = 1e-3
    latent_channels: int = 8
    widths: tuple[int, ...] = (32, 48, 64)


class CaptionsConfig(Section):
    iterations: int = 1500
    batch: int = 96
    lr: float = 2e-3
    width: int = 64
    layers: int = 3


class TeacherConfig(Section):
    iterations: int = 6000
    batch: int = 48
    lr: float = 1e-3
    caption_dropout: float = 0.1
    shift: float = 2.0
    width: int = 128
    layers: int = 4
    patch: int = 3
    images: int = 200_000
    init: Path | None = None  # a pipeline folder to go on from, instead of stages 1 and 2


class StudentConfig(Section):
    """Distillations, each of which goes on from the one before."""

    configs: tuple[Path, ...] = (
        Path("trainer/configs/tiny-distil.toml"),
        Path("trainer/configs/tiny-distil-full.toml"),
    )


class PretrainConfig(Section):
    """Everything pretraining depends on; `trainer/configs/pretrain*.toml`."""

    seed: int = 0
    bf16: bool = True
    data: DataConfig = DataConfig()
    vae: VaeConfig = VaeConfig()
    captions: CaptionsConfig = CaptionsConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m trainer pretrain`."""
    parser.add_argument("--config", type=Path, default=Path("trainer/configs/pretrain-cpu.toml"))
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("runs/pretrain/weights"))
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: all, in order")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def main(args: argparse.Namespace) -> int:
    """Run the stages asked for."""
    config = validate(PretrainConfig, read_toml(args.config))
    device = torch.device(args.device)
    stages = args.stage or STAGES
    torch.manual_seed(config.seed)
    if "vae" in stages:
        train_vae(config, device, args.work)
    if "captions" in stages:
        train_captions(config, args.work)
    if "teacher" in stages:
        train_teacher(config, device, args.work, args.out)
    if "student" in stages:
        from trainer.pretraining.student import distil

        distil(config.student.configs, args.out, args.work, config.data.text_share)
    return 0


def _dataset(config: PretrainConfig, images: int, work: Path, seed: int) -> Dataset:
    d = config.data
    recipe = Recipe(images, d.size, d.text_share, d.wrong_captions, seed)
    return load_or_render(recipe, work)


def _autocast(config: PretrainConfig, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)


def train_vae(config: PretrainConfig, device: torch.device, work: Path) -> None:
    """Stage 1; writes `work/vae`."""
    c = config.vae
    data = _dataset(config, config.data.images, work, config.seed)
    vae = build_vae(config.data.size, c.latent_channels, c.widths)
    vae = vae.to(device, memory_format=torch.channels_last)

    def loss() -> torch.Tensor:
        rows = torch.randint(len(data), (c.batch,))
        images = to_unit(data.images[rows].to(device))
        # Convolutions this narrow are faster in fp32 than in bf16 on CPUs.
        return vae_loss(vae, images.contiguous(memory_format=torch.channels_last), c.kl_weight)

    schedule = Schedule(c.lr, c.iterations, warmup=100, decay=0.5)
    optimise("vae", vae, loss, schedule, work, seed=config.seed, ema_decay=0.99)
    vae = vae.cpu()
    calibrate(vae, data)
    vae.save_pretrained(str(work / "vae"))


def _encoders(config: PretrainConfig) -> TextEncoders:
    return TextEncoders(config.captions.width, config.captions.layers)


def train_captions(config: PretrainConfig, work: Path) -> None:
    """Stage 2; writes `work/encoders.safetensors`."""
    c = config.captions
    schedule = Schedule(c.lr, c.iterations, warmup=100)
    encoders = train_encoders(
        _encoders(config), schedule, c.batch, config.data.text_share, work, config.seed
    )
    save_file(encoders.state_dict(), work / "encoders.safetensors")


def train_teacher(config: PretrainConfig, device: torch.device, work: Path, out: Path) -> None:
    """Stage 3; writes the pipeline folder `out`."""
    c = config.teacher
    vae = AutoencoderKL.from_pretrained(
        str(c.init or work), subfolder="vae", use_safetensors=True
    ).float()
    vae = vae.to(device).eval()
    encoders = _encoders(config)
    if c.init is not None:
        encoders.load(c.init)
    else:
        encoders.load_state_dict(load_file(work / "encoders.safetensors"))
    encoders = encoders.to(device).eval()
    data = _dataset(config, c.images, work, config.seed + 1)
    latents = encode_all(vae, data)
    captions, index = encode_captions(encoders, data.tokens, device)
    arch = Architecture(width=c.width, layers=c.layers, patch=c.patch)
    transformer = build_transformer(arch, vae, encoders.width).to(device)
    if c.init is not None:
        known = SD3Transformer2DModel.from_pretrained(
            str(c.init), subfolder="transformer", use_safetensors=True
        )
        transformer.load_state_dict(known.float().state_dict())

    def loss() -> torch.Tensor:
        rows = torch.randint(len(data), (c.batch,))
        dropped = torch.rand(c.batch) < c.caption_dropout
        caption = torch.where(dropped, len(captions.pooled) - 1, index[rows])
        with _autocast(config, device):
            return flow_matching_loss(
                transformer,
                latents[rows].to(device).float(),
                captions.context[caption].to(device).float(),
                captions.pooled[caption].to(device).float(),
                c.shift,
            )

    schedule = Schedule(c.lr, c.iterations)
    matrices = [p for p in transformer.transformer_blocks.parameters() if p.ndim == 2]
    optimise("teacher", transformer, loss, schedule, work, seed=config.seed, matrices=matrices)
    save_pipeline(transformer.cpu(), encoders.cpu(), vae.cpu(), c.shift, str(out))
