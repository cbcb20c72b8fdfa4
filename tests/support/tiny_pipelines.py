"""Random-weight pipelines of stock classes in their stock layout, each built in a second.

A family says how its stock pipeline is called where ours is called otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

UNTYPED: Any = diffusers  # the library carries no types
SIDE = 64  # pixels of the pictures
TEXT = 128  # tokens of the prompts
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)


def as_they_are(latents: Tensor, pipeline: Any) -> Tensor:
    """Latents of a pipeline that packs nothing."""
    return latents


@dataclass(frozen=True)
class Family:
    """A stock class: how a tiny one is built, and what its call wants.

    guided: arguments of guidance of our scale. packed: our latents as the call takes them.
    """

    name: str
    build: Callable[[], Any]
    guided: Callable[[float], dict[str, Any]]
    packed: Callable[[Tensor, Any], Tensor] = as_they_are


def written(family: Family, folder: Path) -> Path:
    """The family's pipeline in a folder."""
    torch.manual_seed(0)
    pipeline = family.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(str(folder))
    return folder


def byte_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with the special tokens of Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["a photo of three red circles"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=chat_template,
        model_max_length=512,
    )


def picture_vae(latent_channels: int = 16) -> Any:
    """An AutoencoderKL with a scale of 8 and statistics of its own."""
    return UNTYPED.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=0.4,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def say_something(*modules: nn.Module | nn.Parameter) -> None:
    """Fills what the stock initialisation leaves zero or unset, so that a test can see it."""
    with torch.no_grad():
        for module in modules:
            for parameter in [module] if isinstance(module, nn.Parameter) else module.parameters():
                nn.init.normal_(parameter, std=0.2)


def zimage() -> Any:
    """Z-Image: two layers."""
    transformer = UNTYPED.ZImageTransformer2DModel(
        in_channels=16,
        dim=48,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[8, 8, 8],
        axes_lens=[256, 64, 64],
    )
    say_something(transformer.x_pad_token, transformer.cap_pad_token)
    tokenizer = byte_tokenizer(CHAT)
    encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=1024,
        )
    )
    return UNTYPED.ZImagePipeline(
        scheduler=UNTYPED.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=picture_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )


FAMILIES = (Family("zimage", zimage, lambda scale: {"guidance_scale": scale - 1}),)
