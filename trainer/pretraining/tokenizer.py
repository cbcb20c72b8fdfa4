"""The CLIPTokenizer of the embedded model: words of its captions are tokens, all else is spelled.

With a token a letter, three quarters of what the transformer works on would be text. Merges
lead from a word's last letter to its first, so that no two words' merges meet anywhere but in an
ending they share: any text can be spelled, and the letters of signs stay apart (but for one sign of
three letters in eighteen, which ends as some word does).
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from transformers import CLIPTokenizer

from trainer.tiny.world import caption_words

MAX_TOKENS = 14
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """A stock CLIPTokenizer, which lower-cases and marks the last letter of each word."""
    characters = string.ascii_lowercase + string.digits + "'\",.!?-:;"
    merges = _merges(caption_words())
    pieces = [*characters, *(f"{c}</w>" for c in characters)]
    pieces += [*(first + rest for first, rest in merges), START, END]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that build each word from its end, each merge once."""
    merges = [
        (word[at], f"{word[at + 1 :]}</w>") for word in words for at in range(len(word) - 2, -1, -1)
    ]
    return list(dict.fromkeys(merges))


def tokenize(captions: Sequence[str]) -> torch.Tensor:
    """Padded token ids, int64 (len(captions), MAX_TOKENS)."""
    encoded = build_tokenizer()(
        list(captions), padding="max_length", truncation=True, return_tensors="pt"
    )
    ids: torch.Tensor = encoded.input_ids
    return ids
