"""Stage 1 of pretraining: a stock AutoencoderKL, four times smaller per side than the picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL
from rich.progress import track
from torch.nn import functional

from trainer.pretraining.dataset import Dataset

PART = 50  # pictures encoded at once: a CPU's caches want no more


def build_vae(size: int, latent_channels: int, widths: tuple[int, ...]) -> AutoencoderKL:
    """An untrained VAE; each width after the first halves the resolution."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=size,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def vae_loss(vae: AutoencoderKL, images: torch.Tensor, kl_weight: float) -> torch.Tensor:
    """L1 + L2 reconstruction plus a small KL; images in [-1, 1], shape (B, 3, S, S)."""
    posterior = vae.encode(images).latent_dist
    restored = vae.decode(posterior.sample()).sample.float()
    distance = functional.l1_loss(restored, images) + functional.mse_loss(restored, images)
    kl: torch.Tensor = posterior.kl().mean() / posterior.mean[0].numel()
    return distance + kl_weight * kl


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, S, S) to float in [-1, 1]."""
    return images.float() / 127.5 - 1


def calibrate(vae: AutoencoderKL, data: Dataset, samples: int = 2048) -> None:
    """Set scaling and shift so that latents have mean 0 and standard deviation 1."""
    latents = torch.cat(list(_means(vae, data.images[:samples])))
    vae.register_to_config(
        shift_factor=float(latents.mean()), scaling_factor=1.0 / float(latents.std())
    )


def encode_all(vae: AutoencoderKL, data: Dataset) -> torch.Tensor:
    """Normalised latents of the whole dataset, bfloat16 (N, C, h, w) on the CPU."""
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    means = _means(vae, data.images)
    return torch.cat([((mean - shift) * scale).to("cpu", torch.bfloat16) for mean in means])


@torch.no_grad()
def _means(vae: AutoencoderKL, images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Latents as the VAE has them, a few uint8 pictures (B, 3, S, S) at a time."""
    vae.to(memory_format=torch.channels_last)  # a CPU convolves these widths faster so
    for batch in track(torch.split(images, PART), "encoding scenes"):
        pixels = to_unit(batch.to(vae.device)).contiguous(memory_format=torch.channels_last)
        yield vae.encode(pixels).latent_dist.mean
