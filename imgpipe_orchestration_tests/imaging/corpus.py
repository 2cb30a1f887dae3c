"""Images the tests make themselves, so that every pixel of them is known."""

import io
import struct
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
import pi_heif
import pillow_heif
from PIL import Image

from imgpipe_orchestration.devstack.photos import open_photo
from imgpipe_orchestration.imaging.measuring import look
from imgpipe_orchestration.imaging.recipe import MEDIA, Recipe
from imgpipe_orchestration.imaging.render import prepare

SMALL = Recipe(sizes=MEDIA.sizes[:1], adaptive=False)
"""A recipe that renders quickly."""
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


def exif_of(tags: dict[int, object]) -> bytes:
    """EXIF with these entries."""
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes()


def measure(data: bytes) -> dict[str, Any]:
    """What is measured of a file on its way through the pipeline."""
    return look(data).values


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
