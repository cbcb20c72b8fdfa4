"""Detectors small enough to be made by a test, saved the way model hubs hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessorPil,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    ResNetConfig,
    SwinConfig,
)

from shared.images import Pixels

SIDE = 32
LABELS = {0: "N/A", 1: "apple", 2: "mouse"}
RED, BLUE, PAPER = (220, 35, 35), (45, 85, 235), (248, 248, 248)

Thing = tuple[int, tuple[int, int, int], tuple[int, int, int, int]]
PICTURES: list[list[Thing]] = [
    [(1, RED, (10, 10, 22, 22))],
    [(1, RED, (2, 4, 14, 16)), (1, RED, (18, 16, 30, 28))],
    [(1, RED, (2, 2, 12, 12)), (1, BLUE, (20, 2, 30, 12)), (2, BLUE, (10, 20, 22, 30))],
]
"""Per picture its things: label, colour and box (x0, y0, x1, y1) in pixels."""


def draw(things: list[Thing]) -> Pixels:
    """Plain rectangles on paper."""
    image = np.full((SIDE, SIDE, 3), PAPER, dtype=np.uint8)
    for _, color, (x0, y0, x1, y1) in things:
        image[y0:y1, x0:x1] = color
    return image


def save_detector(folder: Path, most_steps: int = 2000, learned: float = 0.15) -> None:
    """A DETR that has learned ``PICTURES`` by heart, in seconds on one core."""
    torch.manual_seed(0)
    model = DetrForObjectDetection(
        DetrConfig(
            backbone_config=_resnet(),
            num_queries=4,
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            dropout=0.0,
            eos_coefficient=1.0,
            id2label=LABELS,
        )
    )
    # Queries that begin alike would all learn to find the same thing.
    torch.nn.init.normal_(model.model.query_position_embeddings.weight)
    processor = DetrImageProcessorPil(size={"height": SIDE, "width": SIDE})
    inputs = processor(images=[draw(things) for things in PICTURES], return_tensors="pt")
    answers = [
        {
            "class_labels": torch.tensor([label for label, _, _ in things]),
            "boxes": torch.tensor([_relative(box) for _, _, box in things]),
        }
        for things in PICTURES
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps of milliseconds: a second thread only waits for the first
    for _ in range(most_steps):
        optimizer.zero_grad()
        loss = model(**inputs, labels=answers).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if loss < learned:
            break
    torch.set_num_threads(threads)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _resnet() -> ResNetConfig:
    """Features of 8 x 8: a quarter of the picture's side."""
    return ResNetConfig(
        embedding_size=16,
        hidden_sizes=[32],
        depths=[1],
        layer_type="basic",
        out_features=["stage1"],
    )


def _relative(box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    """Centre, width and height as shares of the picture."""
    x0, y0, x1, y1 = (edge / SIDE for edge in box)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def save_segmenter(folder: Path) -> None:
    """A Mask2Former with random weights: it sees something, but nothing sensible."""
    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=SIDE,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=5,
        id2label=LABELS,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    Mask2FormerImageProcessorPil(size=size).save_pretrained(folder)
