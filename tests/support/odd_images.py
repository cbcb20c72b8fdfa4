"""Image files as the world sends them: every mode and container, whole and damaged."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st
from PIL import Image

SIDE = 32


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _scene(mode: str) -> Image.Image:
    rgba = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
    return Image.fromarray(rgba, "RGBA").convert("RGB").convert(mode)


def _with_orientation(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _file(_scene("RGB").resize((SIDE, SIDE - 8)), kind, exif=exif.tobytes())


def png_chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG file of these header fields and chunks."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + b"".join(chunks)


def _rgb16() -> bytes:
    rows = b"".join(b"\0" + bytes(range(SIDE * 3)) * 2 for _ in range(SIDE))
    data = png_chunk(b"IDAT", zlib.compress(rows))
    return png(SIDE, SIDE, 16, 2, data, png_chunk(b"IEND", b""))


RAMP = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 60
"""Grey from black to nearly white in 16 bits."""


def _grey16() -> bytes:
    return _file(Image.fromarray(RAMP), "PNG")


def _moving(kind: str) -> bytes:
    frames = [_scene("RGB").rotate(90 * turn) for turn in range(3)]
    return _file(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)


READABLE = {
    "png 1 bit": _file(_scene("1"), "PNG"),
    "png grey": _file(_scene("L"), "PNG"),
    "png grey, transparent": _file(_scene("LA"), "PNG"),
    "png palette": _file(_scene("P"), "PNG"),
    "png palette, transparent": _file(_scene("P"), "PNG", transparency=3),
    "png rgb, transparent colour": _file(_scene("RGB"), "PNG", transparency=(1, 2, 3)),
    "png rgba": _file(_scene("RGBA"), "PNG"),
    "png grey 16 bit": _grey16(),
    "png rgb 16 bit": _rgb16(),
    "png exif": _with_orientation("PNG"),
    "jpeg grey": _file(_scene("L"), "JPEG"),
    "jpeg": _file(_scene("RGB"), "JPEG", quality=90),
    "jpeg progressive": _file(_scene("RGB"), "JPEG", progressive=True),
    "jpeg cmyk": _file(_scene("CMYK"), "JPEG"),
    "jpeg exif": _with_orientation("JPEG"),
    "webp": _file(_scene("RGB"), "WEBP"),
    "webp lossless": _file(_scene("RGBA"), "WEBP", lossless=True),
    "webp exif": _with_orientation("WEBP"),
}
"""Files that have a score."""

REFUSED = {
    "png animation": _moving("PNG"),
    "webp animation": _moving("WEBP"),
    "gif": _file(_scene("P"), "GIF"),
    "tiff": _file(_scene("RGB"), "TIFF"),
    "nothing": b"",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "huge": png(60_000, 60_000, 8, 2, png_chunk(b"IDAT", zlib.compress(b"\0" * 99))),
    "wide": png(2**31 - 1, 1, 8, 2, png_chunk(b"IDAT", zlib.compress(b"\0" * 99))),
    "empty area": png(0, 0, 8, 2, png_chunk(b"IDAT", b"")),
    "text bomb": png(
        8, 8, 8, 2, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 2**27)), _rgb16()[33:]
    ),
    "profile bomb": png(
        8, 8, 8, 2, png_chunk(b"iCCP", b"k\0\0" + zlib.compress(b"\0" * 2**27)), _rgb16()[33:]
    ),
    "exif cut short": png(SIDE, SIDE, 16, 2, png_chunk(b"eXIf", b"II*\0"), _rgb16()[33:]),
    "pixel bomb": png(4096, 4096, 8, 2, png_chunk(b"IDAT", zlib.compress(b"\0" * 2**20))),
}
"""Files that have none."""

_places = st.integers(0, 10**6)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of the files above after a few edits: bytes changed, cut out, put in, doubled, swapped
    with another file's."""
    files = st.sampled_from([*READABLE.values(), *REFUSED.values()])
    data = bytearray(draw(files)[:4096])
    for _ in range(draw(st.integers(1, 6))):
        at, length = draw(_places) % (len(data) + 1), draw(st.integers(0, 64))
        kind = draw(st.sampled_from(["change", "cut", "end", "insert", "double", "other"]))
        if kind == "change":
            noise = draw(st.binary(min_size=1, max_size=8))
            data[at : at + len(noise)] = noise
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "end":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=32))
        elif kind == "double":
            data[at:at] = data[at : at + length]
        else:
            data[at:] = draw(files)[at:4096]
    return bytes(data)


@st.composite
def sealed(draw: st.DrawFn) -> bytes:
    """A PNG whose chunks hold nonsense under right checksums: it gets past the first look."""
    header = [draw(st.integers(0, 40)) for _ in range(2)]
    header += [draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.sampled_from([0, 2, 3, 4, 6]))]
    names = [b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"gAMA", b"iCCP", b"zTXt", b"iTXt", b"acTL"]
    names += [b"fcTL", b"fdAT", b"pHYs", b"cHRM", b"sRGB", b"tEXt"]
    chunks = []
    for name in draw(st.lists(st.sampled_from(names), max_size=5)):
        body = draw(st.binary(max_size=64))
        packed = draw(st.booleans())
        chunks.append(png_chunk(name, zlib.compress(body * 40) if packed else body))
    return png(*header, *chunks, png_chunk(b"IEND", b""))


_tags = st.sampled_from([0x0112, 0x0100, 0x8769, 0x8825, 0xA005, 0x927C])
_kinds = st.integers(0, 14)
_counts = st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))


@st.composite
def tagged(draw: st.DrawFn) -> bytes:
    """A good JPEG or WebP whose EXIF block is damaged: it is read before the pixels are turned."""
    entries = draw(st.lists(st.tuples(_tags, _kinds, _counts, _counts), min_size=1, max_size=3))
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    claimed = draw(st.sampled_from([len(entries), 0, 99]))
    block = b"II*\0" + struct.pack("<IH", 8, claimed) + directory + draw(st.binary(max_size=16))
    kind = draw(st.sampled_from(["JPEG", "WEBP", "PNG"]))
    return _file(_scene("RGB"), kind, exif=b"Exif\0\0" + block)


any_file = st.one_of(damaged(), sealed(), tagged())


@st.composite
def texts(draw: st.DrawFn) -> str:
    """What stands in ``b64``: a file, whole or damaged, cut off, or no base64 at all."""
    whole = base64.b64encode(draw(any_file)).decode()
    cut = whole[: draw(_places) % (len(whole) + 1)]
    return draw(st.sampled_from([whole, whole, cut, f"data:image/png;base64,{whole}"]))


def largest() -> Iterator[tuple[str, bytes]]:
    """Files as large as they may be, in the modes that cost most, and larger ones."""
    full = Image.effect_noise((4096, 4096), 60)
    yield "cmyk", _file(Image.merge("CMYK", [full] * 4), "JPEG", quality=60)
    yield "progressive", _file(Image.merge("RGB", [full] * 3), "JPEG", progressive=True)
    yield "rgba", _file(Image.new("RGBA", (4096, 4096), (9, 9, 9, 99)), "PNG", compress_level=1)
    yield "webp", _file(Image.new("RGBA", (4096, 4096), (9, 9, 9, 99)), "WEBP", quality=1, method=0)
    for name in ("text bomb", "profile bomb", "pixel bomb", "huge"):
        yield name, REFUSED[name]
