"""Stand-ins at real seams: a random-weight SD3 folder, and a reward that is a function.

The folder is made of the stock classes with the stock layout, small enough to build in a second.
"""

from __future__ import annotations

import json
import string
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import (
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

UNTYPED: Any = diffusers  # the library carries no types
CLIP_WIDTH = 16
TEXT_LENGTH = 24


def char_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIPTokenizer whose tokens are single characters."""
    characters = string.ascii_lowercase + string.digits + "'\",.-!?"
    words = [c for c in characters] + [c + "</w>" for c in characters]
    vocab = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TEXT_LENGTH
    )


def _clip(vocab: int, projection: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=vocab,
        hidden_size=CLIP_WIDTH,
        intermediate_size=32,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=vocab - 2,
        eos_token_id=vocab - 1,
        pad_token_id=vocab - 1,
    )
    return CLIPTextModelWithProjection(config)


def build_sd3_folder(folder: Path, *, t5: bool = False, seed: int = 0) -> Path:
    """Writes a random-weight SD3 folder: 32 px images, 4 x 8 x 8 latents, 2 layers."""
    torch.manual_seed(seed)
    tokenizer = char_tokenizer(folder.parent / f"{folder.name}-vocabulary")
    joint = 40 if t5 else 2 * CLIP_WIDTH
    transformer = UNTYPED.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=joint,
        caption_projection_dim=16,
        pooled_projection_dim=2 * CLIP_WIDTH,
        pos_embed_max_size=8,
    )
    with (
        torch.no_grad()
    ):  # the stock initialisation of the output is zero: give it something to say
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    vae = UNTYPED.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=1.3,
        shift_factor=0.2,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    t5_encoder = _t5(joint) if t5 else None
    pipeline = UNTYPED.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=UNTYPED.FlowMatchEulerDiscreteScheduler(shift=2.0),
        vae=vae,
        text_encoder=_clip(len(tokenizer), CLIP_WIDTH),
        tokenizer=tokenizer,
        text_encoder_2=_clip(len(tokenizer), CLIP_WIDTH),
        tokenizer_2=tokenizer,
        text_encoder_3=t5_encoder,
        tokenizer_3=ByT5Tokenizer() if t5 else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(str(folder))
    return folder


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=384, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, use_cache=False
    )
    return T5EncoderModel(config)
