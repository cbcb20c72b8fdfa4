"""Folders that describe full-size models without their weights, for plans and benchmarks.

The shapes are those of the published models' configuration files: stabilityai/stable-diffusion-3.5-
medium, Tongyi-MAI/Z-Image, black-forest-labs/FLUX.1-dev, Qwen/Qwen-Image and
Efficient-Large-Model/Sana_1600M_1024px_diffusers. `python -m benchmarks.full_size DIR` writes all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Part = tuple[str, str, dict[str, Any]]

T5: Part = (
    "transformers",
    "T5EncoderModel",
    {
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    },
)


def clip(name: str, width: int, layers: int, heads: int) -> Part:
    """A CLIP text encoder: ViT-L's has width 768, ViT-bigG's 1280."""
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    return (
        "transformers",
        name,
        {**shape, "num_hidden_layers": layers, "num_attention_heads": heads},
    )


def picture_vae(scaling: float, shift: float) -> Part:
    """The 16-channel VAE of SD3, FLUX.1 and Z-Image."""
    return (
        "diffusers",
        "AutoencoderKL",
        {
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "block_out_channels": [128, 256, 512, 512],
            "layers_per_block": 2,
            "latent_channels": 16,
            "scaling_factor": scaling,
            "shift_factor": shift,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
    )


FULL_SIZE: dict[str, tuple[str, dict[str, Part]]] = {
    "sd35-medium": (
        "StableDiffusion3Pipeline",
        {
            "transformer": (
                "diffusers",
                "SD3Transformer2DModel",
                {
                    "sample_size": 128,
                    "patch_size": 2,
                    "in_channels": 16,
                    "out_channels": 16,
                    "num_layers": 24,
                    "attention_head_dim": 64,
                    "num_attention_heads": 24,
                    "joint_attention_dim": 4096,
                    "caption_projection_dim": 1536,
                    "pooled_projection_dim": 2048,
                    "pos_embed_max_size": 384,
                    "dual_attention_layers": list(range(13)),
                    "qk_norm": "rms_norm",
                },
            ),
            "vae": picture_vae(1.5305, 0.0609),
            "text_encoder": clip("CLIPTextModelWithProjection", 768, 12, 12),
            "text_encoder_2": clip("CLIPTextModelWithProjection", 1280, 32, 20),
            "text_encoder_3": T5,
        },
    ),
    "z-image": (
        "ZImagePipeline",
        {
            "transformer": ("diffusers", "ZImageTransformer2DModel", {}),
            "vae": picture_vae(0.3611, 0.1159),
            "text_encoder": (
                "transformers",
                "Qwen3Model",
                {
                    "vocab_size": 151936,
                    "hidden_size": 2560,
                    "intermediate_size": 9728,
                    "num_hidden_layers": 36,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 8,
                    "head_dim": 128,
                },
            ),
        },
    ),
    "flux1-dev": (
        "FluxPipeline",
        {
            "transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": True}),
            "vae": picture_vae(0.3611, 0.1159),
            "text_encoder": clip("CLIPTextModel", 768, 12, 12),
            "text_encoder_2": T5,
        },
    ),
    "qwen-image": (
        "QwenImagePipeline",
        {
            "transformer": ("diffusers", "QwenImageTransformer2DModel", {}),
            "vae": ("diffusers", "AutoencoderKLQwenImage", {}),
            "text_encoder": (
                "transformers",
                "Qwen2_5_VLForConditionalGeneration",
                {
                    "text_config": {
                        "vocab_size": 152064,
                        "hidden_size": 3584,
                        "intermediate_size": 18944,
                        "num_hidden_layers": 28,
                        "num_attention_heads": 28,
                        "num_key_value_heads": 4,
                    },
                    "vision_config": {"out_hidden_size": 3584},
                },
            ),
        },
    ),
    "sana-1.6b": (
        "SanaPipeline",
        {
            "transformer": ("diffusers", "SanaTransformer2DModel", {}),
            "vae": (
                "diffusers",
                "AutoencoderDC",
                {
                    "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
                    "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
                    "downsample_block_type": "Conv",
                    "upsample_block_type": "interpolate",
                    "scaling_factor": 0.41407,
                },
            ),
            "text_encoder": (
                "transformers",
                "Gemma2Model",
                {
                    "vocab_size": 256000,
                    "hidden_size": 2304,
                    "intermediate_size": 9216,
                    "num_hidden_layers": 26,
                    "num_attention_heads": 8,
                    "num_key_value_heads": 4,
                    "head_dim": 256,
                },
            ),
        },
    ),
}


# The same with little of it, where only the way is tried.
SMALL: dict[str, dict[str, Any]] = {
    "SD3Transformer2DModel": {
        "num_layers": 2,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "caption_projection_dim": 128,
        "pooled_projection_dim": 64,
        "dual_attention_layers": [0],
    },
    "ZImageTransformer2DModel": {
        "dim": 256,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 64,
    },
    "AutoencoderKL": {"block_out_channels": [32] * 4, "layers_per_block": 1},
}


def describe(name: str, folder: Path, *, tiny: bool = False) -> Path:
    """Writes the configuration files of a full-size model to `folder`; returns it.

    tiny: with few and narrow layers.
    """
    pipeline, parts = FULL_SIZE[name]
    index: dict[str, Any] = {"_class_name": pipeline}
    for part, (library, kind, config) in parts.items():
        index[part] = [library, kind]
        (folder / part).mkdir(parents=True, exist_ok=True)
        config = {**config, **(SMALL.get(kind, {}) if tiny else {})}
        named = {"_class_name": kind, **config} if library == "diffusers" else config
        (folder / part / "config.json").write_text(json.dumps(named, indent=1), encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return folder


if __name__ == "__main__":
    for model in FULL_SIZE:
        sys.stdout.write(f"{describe(model, Path(sys.argv[1]) / model)}\n")
