"""What a stand-in can honestly say about an image: size, colours, brightness, sharpness. About a millisecond each."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

_NAMES = {
    "black": (20, 20, 20),
    "white": (240, 240, 240),
    "grey": (128, 128, 128),
    "red": (200, 40, 40),
    "orange": (230, 130, 40),
    "yellow": (230, 210, 60),
    "green": (60, 150, 70),
    "teal": (40, 150, 150),
    "blue": (50, 90, 190),
    "purple": (130, 70, 160),
    "pink": (230, 140, 170),
    "brown": (120, 80, 50),
    "beige": (220, 200, 165),
}


@dataclass(frozen=True)
class Measured:
    """Figures of one image. Colours are sRGB, 0 to 255; shares, brightness and sharpness are 0 to 1."""

    width: int
    height: int
    colours: tuple[tuple[tuple[int, int, int], float], ...]
    brightness: float
    sharpness: float
    busiest: tuple[float, float]
    """Centre of the quarter with the most detail, as shares of width and height."""
    digest: bytes

    @property
    def orientation(self) -> str:
        ratio = self.width / self.height
        return "landscape" if ratio > 1.1 else "portrait" if ratio < 0.9 else "square"

    @property
    def colour_name(self) -> str:
        """The name nearest to the first colour."""
        first = np.array(self.colours[0][0])
        return min(_NAMES, key=lambda name: float(np.sum((first - np.array(_NAMES[name])) ** 2)))

    @property
    def hexes(self) -> list[str]:
        return ["#{:02x}{:02x}{:02x}".format(*colour) for colour, _ in self.colours]


@lru_cache(maxsize=256)
def measure(image: bytes) -> Measured | None:
    """Figures of an encoded image, or None when it cannot be read."""
    try:
        with Image.open(BytesIO(image)) as opened:
            width, height = opened.size
            opened.draft("RGB", (48, 48))
            if opened.width * opened.height > 40_000_000:
                return None
            small = opened.convert("RGB").resize((32, 32), Image.Resampling.BOX, reducing_gap=1.5)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    pixels = np.asarray(small, dtype=np.float32)
    grey = pixels.mean(axis=2)
    detail = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1, :]
    blocks = detail[:30, :30].reshape(3, 10, 3, 10).sum(axis=(1, 3))
    row, column = divmod(int(blocks.argmax()), 3)
    return Measured(
        width=width,
        height=height,
        colours=_colours(small),
        brightness=float(grey.mean() / 255),
        sharpness=float(min(1.0, detail.mean() / 40)),
        busiest=((column + 0.5) / 3, (row + 0.5) / 3),
        digest=hashlib.sha256(image).digest(),
    )


def _colours(small: Image.Image) -> tuple[tuple[tuple[int, int, int], float], ...]:
    indexed = small.quantize(6, method=Image.Quantize.FASTOCTREE)
    palette = indexed.getpalette() or []
    counts = sorted(indexed.getcolors() or [], key=lambda entry: entry[0], reverse=True)
    return tuple(
        ((palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]), count / 1024)
        for count, i in ((count, int(str(index))) for count, index in counts[:5])
    )


def from_data_url(url: str) -> bytes | None:
    """The bytes of a data URL; None for any other URL, or when it is not base64."""
    head, _, encoded = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
