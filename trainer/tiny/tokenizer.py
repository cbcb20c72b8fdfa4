"""The character-level CLIPTokenizer of the embedded model.

CLIP's tokenizer lower-cases and marks the last letter of each word, so blanks cost no token and a
caption of `MAX_CHARACTERS` fits into `MAX_TOKENS`.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from transformers import CLIPTokenizer

MAX_TOKENS = 30
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """A stock CLIPTokenizer with no merges: one token a character."""
    characters = string.ascii_lowercase + string.digits + "'\",.!?-:;"
    pieces = [*characters, *(f"{c}</w>" for c in characters), START, END]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(
        vocab=vocab,
        merges=[],
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )


def tokenize(captions: Sequence[str]) -> torch.Tensor:
    """Padded token ids, int64 (len(captions), MAX_TOKENS)."""
    encoded = build_tokenizer()(
        list(captions), padding="max_length", truncation=True, return_tensors="pt"
    )
    ids: torch.Tensor = encoded.input_ids
    return ids
