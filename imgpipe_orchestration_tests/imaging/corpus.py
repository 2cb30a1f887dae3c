"""Images the tests make themselves, so that every pixel of them is known."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache
from typing import Literal

import numpy as np
import pi_heif
import pillow_heif
from PIL import Image

from imgpipe_orchestration.devstack.photos import open_photo
from imgpipe_orchestration.imaging.measuring.measure import Measurements, look
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare

PNG = b"\x89PNG\r\n\x1a\n"
"""How each begins."""


@lru_cache(maxsize=16)
def picture(width: int = 640, height: int = 480, *, seed: int = 1) -> Image.Image:
    """A photograph-like RGB picture: soft shapes, edges and fine texture, different in every corner."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / max(height, 1), x / max(width, 1)
    channels = []
    for channel in range(3):
        phase = random.uniform(0, 6, 3)
        soft = np.sin(5 * x + phase[0]) + np.cos(4 * y + phase[1]) + np.sin(9 * (x + y) + phase[2])
        edge = ((x - 0.3) ** 2 + (y - 0.6) ** 2 < 0.04) * (60 - 40 * channel)
        channels.append(128 + 30 * soft + edge)
    rgb = np.stack(channels, axis=-1) + random.normal(0, 4, (height, width, 1))
    rgb[: height // 4, : width // 4] = (220, 40, 40)
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def write_heic() -> None:
    """Let Pillow write HEIC, by a library that the product does not have; the reader stays the product's."""
    if "HEIF" not in Image.SAVE:
        pillow_heif.register_heif_opener()
        pi_heif.register_heif_opener()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file of Pillow's format `kind`."""
    if kind == "HEIF":
        write_heic()
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def measure(data: bytes) -> Measurements:
    """What is measured of a file on its way through the pipeline."""
    return look(data).measurements


def pixels(data: bytes) -> np.ndarray:
    """The pixels of a file, as Pillow decodes it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA" if image.mode in ("RGBA", "LA") else "RGB")).astype(np.int16)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two pictures of one size, in levels of 255."""
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


@lru_cache(maxsize=4)
def photo(name: str) -> Image.Image:
    """One of the photographs of `devstack.photos`, without its metadata."""
    plain = open_photo(name)
    plain.info = {}
    return plain


def prepared_pixels(data: bytes) -> np.ndarray:
    """The pixels of a file as the media pipeline prepares them."""
    return np.asarray(prepare(data, MEDIA).image)


def png_chunk(kind: bytes, content: bytes, error: int = 0) -> bytes:
    """One of a PNG's chunks; its checksum is wrong by `error`."""
    return len(content).to_bytes(4) + kind + content + (zlib.crc32(kind + content) ^ error).to_bytes(4)


def flat_png(depth: int, kind: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 32 rows that are one row, 32 pixels wide, written by hand: Pillow writes few depths."""
    head = struct.pack(">IIBBBBB", 32, 32, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress((b"\0" + row) * 32)), (b"IEND", b"")]
    return PNG + b"".join(png_chunk(*part) for part in parts)


def tiff_of(
    pixels: np.ndarray,
    meaning: int,
    *,
    order: Literal["<", ">"] = "<",
    big: bool = False,
    planes: bool = False,
    tiled: bool = False,
    packed: bool = False,
    stored: bytes | None = None,
    **more: int | tuple[int, ...] | bytes,
) -> bytes:
    """A TIFF of any numbers, written by hand: Pillow writes few kinds.

    Args:
        pixels: rows, columns, channels.
        meaning: of a pixel (PhotometricInterpretation).
        big: as BigTIFF.
        tiled: in one tile, whose sides are multiples of 16 then.
        packed: by deflate.
        stored: the bytes of the only strip, where numpy has no such numbers.
        more: further tags by number (`t338=2`), or others instead.
    """
    height, width, channels = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    ordered = pixels.astype(pixels.dtype.newbyteorder(order))
    parts = [ordered[..., channel] for channel in range(channels)] if planes else [ordered]
    strips = [zlib.compress(part.tobytes()) if packed else part.tobytes() for part in parts]
    strips = strips if stored is None else [stored]
    offsets, lengths = (324, 325) if tiled else (273, 279)
    tags: dict[int, tuple[int, ...] | bytes] = {
        256: (width,), 257: (height,), 258: (8 * pixels.dtype.itemsize,) * channels, 259: (8 if packed else 1,),
        262: (meaning,), 277: (channels,), 284: (2 if planes else 1,), 339: (kind,) * channels,
        lengths: tuple(map(len, strips)), offsets: (0,) * len(strips),
    }  # fmt: skip
    tags |= {322: (width,), 323: (height,)} if tiled else {278: (height,)}
    tags |= {int(name[1:]): (value,) if isinstance(value, int) else value for name, value in more.items()}
    head, count, entry, offset = (16, "Q", 20, "Q") if big else (8, "H", 12, "I")
    room = 8 if big else 4
    start = head + struct.calcsize(order + count) + entry * len(tags) + room
    behind = start + sum(4 * len(value) for value in tags.values())  # no less than they need
    tags[offsets] = tuple(behind + sum(map(len, strips[:number])) for number in range(len(strips)))
    directory, values = b"", b""
    for tag, value in sorted(tags.items()):
        body = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}I", *value)
        directory += struct.pack(f"{order}HH{offset}", tag, 7 if isinstance(value, bytes) else 4, len(value))
        fits = len(body) <= room
        directory += body.ljust(room, b"\0") if fits else struct.pack(order + offset, start + len(values))
        values += b"" if fits else body
    signature = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    first = struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    table = struct.pack(order + count, len(tags)) + directory + bytes(room)
    return signature + first + table + values.ljust(behind - start, b"\0") + b"".join(strips)
