"""Stage 2 of pretraining: the two text encoders learn to read captions, then stay frozen.

As CLIP's encoders are trained before a diffusion model meets them, these learn to name what a
caption asks for (shapes, colours, number, relation, letters). The heads that spell it out are
thrown away; what the pipeline uses (`hidden_states[-2]` and the projected end token) stays.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from trainer.pretraining.stage import Schedule, optimise
from trainer.pretraining.tokenizer import MAX_TOKENS, build_tokenizer, tokenize
from trainer.tiny.scenes import BACKGROUNDS, COLORS, RELATIONS, SHAPES, SIZES
from trainer.tiny.world import LETTERS, TAGS, Prompt, sample_prompt, sample_tag

ANSWERS: tuple[tuple[str, ...], ...] = (
    (*TAGS, "text"),
    *((("", *SHAPES), ("", *COLORS), ("", *SIZES), ("", "1", "2", "3", "4", "5", "6")) * 2),
    ("", *RELATIONS),
    ("", *BACKGROUNDS),
    *((("", *LETTERS),) * 3),
)


class TextEncoders(nn.Module):
    """The pipeline's two CLIP text encoders, joined as StableDiffusion3Pipeline joins them."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width = 2 * width
        self.first = _build(width, layers)
        self.second = _build(width, layers)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, T) to context (B, T + 1, 2 width) and pooled (B, 2 width)."""
        outputs = [e(tokens, output_hidden_states=True) for e in (self.first, self.second)]
        context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        # The stock pipeline appends max_sequence_length zero tokens for the absent T5: one here.
        context = functional.pad(context, (0, 0, 0, 1))
        return context, torch.cat([output.text_embeds for output in outputs], dim=-1)

    def load(self, pipeline: Path) -> None:
        """Take over the encoders of a pipeline folder."""
        for encoder, name in ((self.first, "text_encoder"), (self.second, "text_encoder_2")):
            known = CLIPTextModelWithProjection.from_pretrained(
                str(pipeline), subfolder=name, use_safetensors=True
            )
            encoder.load_state_dict(known.float().state_dict())


def _build(width: int, layers: int) -> CLIPTextModelWithProjection:
    tokenizer = build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        projection_dim=width,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def answers(prompt: Prompt) -> list[int]:
    """What the prompt asks for, as indices into ANSWERS."""
    said = [prompt.tag]
    for wanted in (*prompt.wanted, None, None)[:2]:
        if wanted is None:
            said += ["", "", "", ""]
        else:
            said += [wanted.shape, wanted.color or "", wanted.size or "", str(wanted.count)]
    said += [prompt.relation or "", prompt.background or ""]
    said += list((prompt.word or "").ljust(3))
    return [a.index(word.strip()) for a, word in zip(ANSWERS, said, strict=True)]


class Reader(nn.Module):
    """The encoders with two throw-away heads: on the pooled vector and on the end token."""

    def __init__(self, encoders: TextEncoders) -> None:
        super().__init__()
        self.encoders = encoders
        self.end = build_tokenizer().eos_token_id
        total = sum(map(len, ANSWERS))
        self.heads = nn.ModuleList(nn.Linear(encoders.width, total) for _ in range(2))

    def loss(self, tokens: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the questions; truth (B, len(ANSWERS))."""
        context, pooled = self.encoders(tokens)
        end = (tokens == self.end).int().argmax(dim=1)
        at_end = context[torch.arange(len(tokens)), end]
        losses = []
        for head, features in zip(self.heads, (pooled, at_end), strict=True):
            logits = head(features).split([len(a) for a in ANSWERS], dim=1)
            losses += [functional.cross_entropy(x, truth[:, i]) for i, x in enumerate(logits)]
        return torch.stack(losses).mean()


def train_encoders(
    encoders: TextEncoders, schedule: Schedule, batch: int, text_share: float, work: Path, seed: int
) -> TextEncoders:
    """Train on prompts of the whole world; resumes from `work`."""
    rng = random.Random(seed)
    prompts = [sample_prompt(sample_tag(text_share, rng), rng) for _ in range(40_000)]
    tokens = tokenize([p.caption for p in prompts])
    truth = torch.tensor([answers(p) for p in prompts])
    reader = Reader(encoders)

    def loss() -> torch.Tensor:
        rows = torch.randint(len(tokens), (batch,))
        return reader.loss(tokens[rows], truth[rows])

    optimise("captions", reader, loss, schedule, work, seed=seed, ema_decay=0.99)
    return encoders
