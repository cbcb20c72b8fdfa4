"""Hidden tastes of the simulated annotators: pure functions of the pixels.

A taste must not be readable off the prompt, or a trainer could please it without ever looking at a
picture; so nothing here is told the prompt. Each one answers for any RGB image and knows no scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Preference = Callable[[NDArray[np.uint8]], bool]

LIGHT_LUMA: Final = 110.0
"""Backgrounds at least this bright (BT.601 luma, 0 to 255) count as light; mid-gray is light."""
CONTRAST: Final = 40.0
"""Pixels nearer than this to the background's colour (RGB distance) are background."""
LEAST_COVER: Final = 0.005
"""Share of the picture that must differ from the background for there to be an object at all."""


def background_color(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Median colour of the outermost pixels of an (H, W, 3) image: float64 of shape (3,)."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    color: NDArray[np.float64] = np.median(edge.astype(np.float64), axis=0)
    return color


def likes_high(image: NDArray[np.uint8]) -> bool:
    """The objects' centre of mass lies in the upper half. A picture without objects is disliked."""
    distance = np.linalg.norm(image.astype(np.float64) - background_color(image), axis=2)
    mass = np.clip(distance - CONTRAST, 0.0, CONTRAST) / CONTRAST
    rows = mass.sum(axis=1)
    if rows.sum() < LEAST_COVER * mass.size:
        return False
    centre = (np.arange(rows.size) + 0.5) @ rows / rows.sum()
    return bool(centre < rows.size / 2)


def likes_light(image: NDArray[np.uint8]) -> bool:
    """The background is light."""
    luma = background_color(image) @ np.array([0.299, 0.587, 0.114])
    return bool(luma >= LIGHT_LUMA)


def likes_warm(image: NDArray[np.uint8]) -> bool:
    """The picture holds more red than blue on the whole."""
    red, _, blue = image.reshape(-1, 3).astype(np.float64).mean(axis=0)
    return bool(red > blue)


PREFERENCES: Final[dict[str, Preference]] = {
    "high": likes_high,
    "light": likes_light,
    "warm": likes_warm,
}
DEFAULT: Final = "high"
