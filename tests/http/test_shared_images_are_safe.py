"""Promise: pixels survive the codec, and no file can harm who opens it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from shared.images import MAX_SIDE, ImageError, decode, encode_png, from_b64, probe, to_b64

pixels = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@settings(max_examples=50, deadline=None)
@given(pixels)
def test_png_is_lossless(image: np.ndarray) -> None:
    data = encode_png(image)
    assert (decode(from_b64(to_b64(data))) == image).all()
    assert (probe(data).height, probe(data).width) == image.shape[:2]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_files_are_refused_or_read_but_never_crash(position: int, byte: int) -> None:
    data = bytearray(encode_png(np.full((16, 16, 3), 77, np.uint8)))
    data[position % len(data)] = byte
    try:
        assert decode(bytes(data)).shape[2] == 3
    except ImageError as error:
        assert error.code.startswith("image_")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_read(kind: str) -> None:
    assert decode(_file(kind)).shape == (6, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(ImageError) as refused:
        decode(_file(kind))
    assert refused.value.code == "image_unsupported"


def test_a_truncated_file_is_refused() -> None:
    data = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(ImageError) as refused:
        decode(data[: len(data) // 2])
    assert refused.value.code == "image_undecodable"


@pytest.mark.parametrize(
    ("width", "height"), [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (60_000, 60_000)]
)
def test_a_header_that_claims_too_much_is_refused_before_decoding(width: int, height: int) -> None:
    with pytest.raises(ImageError) as refused:
        decode(_png_header(width, height))
    assert refused.value.code == "image_too_large"


def test_animations_are_refused() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError) as refused:
        decode(out.getvalue())
    assert refused.value.code == "image_unsupported"


def test_transparency_is_laid_on_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(out, "PNG")
    assert (decode(out.getvalue()) == 255).all()


@pytest.mark.parametrize("text", ["no base64!", "data:image/png;base64,AAAA", "AAA"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ImageError):
        from_b64(text)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4)])
def test_only_rgb_bytes_are_encoded(shape: tuple[int, ...]) -> None:
    with pytest.raises(TypeError, match=r"\(H, W, 3\)"):
        encode_png(np.zeros(shape, np.uint8))


def _file(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(out, kind)
    return out.getvalue()


def _png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
