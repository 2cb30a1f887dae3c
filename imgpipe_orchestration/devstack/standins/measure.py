"""What a stand-in can honestly say about an image: size, colours, brightness, sharpness. A few milliseconds each."""

from __future__ import annotations

import base64
import colorsys
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

_OBJECT = re.compile(rb"object\(((?:[01]\.?[0-9]{0,3} ?){4})\)")
_VERDICT = re.compile(rb"moderation\(([^)]{1,200})\)")
_GREYS = {"black": 20, "dark grey": 70, "grey": 128, "light grey": 200, "white": 250}
_HUES = {"red": 15, "orange": 42, "yellow": 70, "green": 160, "teal": 195, "blue": 260, "purple": 300, "pink": 345}
"""Where each hue ends on the wheel, degrees; after the last one comes red again."""
_DARK = {"orange": "brown", "yellow": "olive"}
_PALE = {"red": "pink", "orange": "beige", "yellow": "beige"}


@dataclass(frozen=True)
class Measured:
    """Figures of one image. Colours are sRGB, 0 to 255; shares, brightness and sharpness are 0 to 1."""

    width: int
    height: int
    colours: tuple[tuple[tuple[int, int, int], float], ...]
    colour_name: str
    """What people would call most of it; empty where no name goes for three tenths of it."""
    brightness: float
    sharpness: float
    busiest: tuple[float, float]
    """Centre of the quarter with the most detail, as shares of width and height."""
    object: tuple[float, ...]
    """Left, top, right and bottom of the object, in shares: what the picture's copyright says in `object(0.1 0 0.5 1)`,
    else around the busiest part."""
    digest: bytes

    @property
    def orientation(self) -> str:
        ratio = self.width / self.height
        return "landscape" if ratio > 1.1 else "portrait" if ratio < 0.9 else "square"

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
    x, y = (column + 0.5) / 3, (row + 0.5) / 3
    said = _OBJECT.search(image)
    around = tuple(map(float, said[1].split())) if said else (max(0, x - 0.2), max(0, y - 0.2), x + 0.2, y + 0.2)
    return Measured(
        width=width,
        height=height,
        colours=_colours(small),
        colour_name=_most(small),
        brightness=float(grey.mean() / 255),
        sharpness=float(min(1.0, detail.mean() / 40)),
        busiest=(x, y),
        object=around,
        digest=hashlib.sha256(image).digest(),
    )


def _most(small: Image.Image) -> str:
    names = Counter(_name(*pixel) for pixel in np.asarray(small).reshape(-1, 3).tolist())
    ((name, count),) = names.most_common(1)
    return name if count >= 0.3 * names.total() else ""


def _name(red: int, green: int, blue: int) -> str:
    """By its hue, for by its numbers a dull brown is next to a grey."""
    most, least = max(red, green, blue), min(red, green, blue)
    if most - least < 30:
        return min(_GREYS, key=lambda name: abs(_GREYS[name] - (red + green + blue) / 3))
    hue = 360 * colorsys.rgb_to_hsv(red, green, blue)[0]
    name = next((name for name, end in _HUES.items() if hue < end), "red")
    return (_DARK if most < 180 else _PALE if least > 120 else {}).get(name, name)


def _colours(small: Image.Image) -> tuple[tuple[tuple[int, int, int], float], ...]:
    six = small.quantize(6, method=Image.Quantize.FASTOCTREE).convert("RGB")
    counts = Counter(map(tuple, np.asarray(six).reshape(-1, 3).tolist()))
    return tuple((colour, count / counts.total()) for colour, count in counts.most_common(5))


def verdict(data: bytes) -> dict[str, float]:
    """Scores by category, which a picture says of itself in its copyright, or a text: `moderation(sexual=0.9)`.

    So a picture can be flagged that is harmless to look at.
    """
    found = _VERDICT.search(data)
    pairs = [pair.partition("=") for pair in found[1].decode(errors="replace").split(",")] if found else []
    return {name.strip(): float(score) for name, _, score in pairs}


def from_data_url(url: str) -> bytes | None:
    """The bytes of a data URL; None for any other URL, or when it is not base64."""
    head, _, encoded = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
