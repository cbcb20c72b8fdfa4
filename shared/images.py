"""Pixels <-> image files <-> sha256: the only image codec, and the limits it enforces.

Reads PNG, JPEG and WebP, writes PNG. Other formats, animations, and files that are too large or say
that their pixels are raise ImageError.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_SIDE: Final = 4096
"""Longest side in pixels."""
MAX_PIXELS: Final = 16_800_000
"""Most pixels per image."""
MIME: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Formats that are read, by decoder name."""

Pixels = NDArray[np.uint8]
"""RGB, shape (height, width, 3), uint8."""

ImageErrorCode = Literal["image_undecodable", "image_unsupported", "image_too_large"]


class ImageError(ValueError):
    """An image file this project does not read; ``code`` is the wire's item error code."""

    def __init__(self, code: ImageErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: ImageErrorCode = code


@dataclass(frozen=True)
class Probe:
    """What an image file's header says; width and height in pixels."""

    mime: str
    width: int
    height: int


def encode_png(pixels: Pixels, level: int = 1) -> bytes:
    """Encode RGB ``pixels`` (H, W, 3) uint8 as lossless PNG.

    Level 1 is the default: level 6 costs about four times the time for little.

    Raises:
        TypeError: the array is not uint8 of shape (H, W, 3).
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TypeError(
            f"pixels must be uint8 of shape (H, W, 3), got {pixels.dtype} {pixels.shape}; "
            "scale to 0..255, round and move the channels last"
        )
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=level)
    return out.getvalue()


def probe(data: bytes) -> Probe:
    """Read format and size from the header, without decoding pixels.

    Raises:
        ImageError: not a readable PNG, JPEG or WebP file, or beyond the size limits.
    """
    with _opened(data) as image:
        return Probe(MIME[str(image.format)], image.width, image.height)


def decode(data: bytes) -> Pixels:
    """Decode an image file to RGB (H, W, 3) uint8; transparency is laid on white.

    Raises:
        ImageError: as ``probe``, or the pixel data is damaged or truncated.
    """
    with _opened(data) as image:
        try:
            upright = _eight_bits(ImageOps.exif_transpose(image))
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return np.asarray(upright.convert("RGB"), dtype=np.uint8)
        # Anything: a damaged file makes Pillow's parsers fail in more ways than it documents.
        except Exception as error:
            raise ImageError("image_undecodable", f"damaged {image.format} file: {error}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte; Pillow's own conversion would turn all but black white."""
    if not image.mode.startswith("I;16"):
        return image
    grey = np.asarray(image)
    clear = grey == image.info.get("transparency", -1)
    return Image.fromarray(np.where(clear, 255, grey >> 8).astype(np.uint8))


def sha256_hex(data: bytes) -> str:
    """Lower-case hex SHA-256: the name under which an image is stored."""
    return hashlib.sha256(data).hexdigest()


def to_b64(data: bytes) -> str:
    """Standard base64 (RFC 4648 section 4) of an image file, as the wire wants it."""
    return base64.b64encode(data).decode("ascii")


def from_b64(text: str) -> bytes:
    """Inverse of ``to_b64``; blanks and line breaks are ignored, a data URL is refused.

    Raises:
        ImageError: not base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "; send only what follows the comma" if text.startswith("data:") else ""
        raise ImageError("image_undecodable", f"b64 is not base64: {error}{hint}") from None


def _opened(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=list(MIME))
        frames = getattr(image, "n_frames", 1)
    except UnidentifiedImageError:
        message = f"{len(data)} bytes are no PNG, JPEG or WebP image"
        raise ImageError("image_unsupported", message) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("image_too_large", f"{error}") from None
    except Exception as error:  # as in ``decode``
        raise ImageError("image_undecodable", f"damaged image header: {error}") from None
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        limit = f"{MAX_SIDE} px per side and {MAX_PIXELS / 1e6:.1f} million pixels"
        raise ImageError("image_too_large", f"{width} x {height} px, the limit is {limit}")
    if frames != 1:
        raise ImageError("image_unsupported", "an animation; send one still image")
    return image
