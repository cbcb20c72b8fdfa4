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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

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


def byte_tokenizer(chat_template: str | None = None, start: bool = False) -> Any:
    """A tokenizer of bytes with the special tokens of Qwen's; start: each text begins with one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["a photo of three red circles"] * 3, trainer)
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{special[1]} $A", special_tokens=[(special[1], 1)]
        )
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


def flux() -> Any:
    """FLUX.1-dev: one layer of each kind, told its guidance."""
    transformer = UNTYPED.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 77
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    t5 = T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return UNTYPED.FluxPipeline(
        scheduler=UNTYPED.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=picture_vae(4),
        text_encoder=CLIPTextModel(clip),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=ByT5Tokenizer(),
        transformer=transformer,
    )


def flux2() -> Any:
    """FLUX.2 klein, not distilled: one layer of each kind, 28 narrow ones of text."""
    transformer = UNTYPED.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = UNTYPED.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
    )
    vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, 16))
    tokenizer = byte_tokenizer(CHAT)
    encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=28,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )
    return UNTYPED.Flux2KleinPipeline(
        scheduler=UNTYPED.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )


def qwen_image() -> Any:
    """Qwen-Image: two layers, a VAE of videos."""
    transformer = UNTYPED.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    vae = UNTYPED.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.7, 1.1, 2.0],
    )
    tokenizer = byte_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"mrope_section": [2, 3, 3], "type": "default", "rope_type": "default"},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    vision |= {"out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return UNTYPED.QwenImagePipeline(
        scheduler=UNTYPED.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, shift_terminal=0.02
        ),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def sana() -> Any:
    """SANA: two layers, latents of an eighth."""
    transformer = UNTYPED.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=8,
        timestep_scale=0.5,
    )
    vae = UNTYPED.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=("ResBlock",) * 4,
        decoder_block_types=("ResBlock",) * 4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.4,
    )
    tokenizer = byte_tokenizer(start=True)
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return UNTYPED.SanaPipeline(
        scheduler=UNTYPED.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        vae=vae,
        text_encoder=Gemma2Model(gemma),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def two_by_two(latents: Tensor, pipeline: Any) -> Tensor:
    """As the stock pipeline packs them."""
    packed: Tensor = pipeline._pack_latents(latents, *latents.shape)
    return packed


FAMILIES = (
    Family("zimage", zimage, lambda scale: {"guidance_scale": scale - 1}),
    Family("flux2", flux2, lambda scale: {"guidance_scale": scale}),
    Family("flux", flux, lambda scale: {"guidance_scale": scale}, two_by_two),
    Family(
        "qwen_image",
        qwen_image,
        lambda scale: {"true_cfg_scale": scale, "negative_prompt": [""] * 2},
        two_by_two,
    ),
    Family("sana", sana, lambda scale: {"guidance_scale": scale, "use_resolution_binning": False}),
)
