"""Pictures as GenEval's detector saw them: mmdet's test pipeline of its Mask2Former.

Resized to fit 1333 x 800 px, however the sides lie, normalised, padded to multiples of 32
(``configs/mask2former/mask2former_r50_lsj_8x2_50e_coco.py`` of mmdetection 2.x).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.images import Pixels

LONGER, SHORTER = 1333, 800
MULTIPLE = 32
MEAN: Final = np.array((123.675, 116.28, 103.53), np.float32)
SPREAD: Final = np.array((58.395, 57.12, 57.375), np.float32)


def published_size(size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width that a picture of (height, width) is resized to."""
    factor = min(LONGER / max(size), SHORTER / min(size))
    height, width = (int(side * factor + 0.5) for side in size)
    return height, width


def published_input(image: Pixels) -> NDArray[np.float32]:
    """RGB uint8 (H, W, 3) as the network's input (3, h, w)."""
    height, width = published_size(image.shape[:2])
    pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    plane = (pixels.astype(np.float32) - MEAN) / SPREAD
    below, right = -height % MULTIPLE, -width % MULTIPLE
    return np.pad(plane, ((0, below), (0, right), (0, 0))).transpose(2, 0, 1)
