"""ThumbHash: a picture's placeholder in about 25 bytes (https://evanw.github.io/thumbhash)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LARGEST = 100
"""The format's reference encoder takes at most 100x100 pixels."""


def thumbhash(image: Image.Image) -> bytes:
    """The hash of an image; any ThumbHash decoder (browsers' libraries among them) turns it into a blurred picture."""
    small = image.convert("RGBA")
    small.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
    width, height = small.size
    pixels = np.asarray(small, dtype=np.float64) / 255
    alpha = pixels[..., 3]
    total = float(alpha.sum())
    average = (pixels[..., :3] * alpha[..., None]).sum(axis=(0, 1)) / total if total else np.zeros(3)
    has_alpha = total < width * height
    red, green, blue = np.moveaxis(average * (1 - alpha[..., None]) + alpha[..., None] * pixels[..., :3], -1, 0)
    most = 5 if has_alpha else 7
    longest = max(width, height)
    columns, rows = max(1, round(most * width / longest)), max(1, round(most * height / longest))

    light = _channel((red + green + blue) / 3, max(3, columns), max(3, rows))
    yellow = _channel((red + green) / 2 - blue, 3, 3)
    pink = _channel(red - green, 3, 3)
    landscape = width > height
    head = _rounded(63 * light[0]) | _rounded(31.5 + 31.5 * yellow[0]) << 6 | _rounded(31.5 + 31.5 * pink[0]) << 12
    head |= _rounded(31 * light[2]) << 18 | int(has_alpha) << 23
    tail = rows if landscape else columns
    tail |= _rounded(63 * yellow[2]) << 3 | _rounded(63 * pink[2]) << 9 | int(landscape) << 15
    start = head.to_bytes(3, "little") + tail.to_bytes(2, "little")
    channels = [light, yellow, pink]
    if has_alpha:
        opacity = _channel(alpha, 5, 5)
        start += bytes([_rounded(15 * opacity[0]) | _rounded(15 * opacity[2]) << 4])
        channels.append(opacity)
    nibbles = [_rounded(15 * value) for channel in channels for value in channel[1]]
    nibbles += [0] * (len(nibbles) % 2)
    return start + bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))


def _channel(values: NDArray[np.float64], columns: int, rows: int) -> tuple[float, list[float], float]:
    """Cosine transform of one channel: mean, the other low frequencies scaled to 0..1, and that scale."""
    height, width = values.shape
    across = np.cos(math.pi / width * np.outer(np.arange(columns), np.arange(width) + 0.5))
    down = np.cos(math.pi / height * np.outer(np.arange(rows), np.arange(height) + 0.5))
    factors = down @ values @ across.T / (width * height)
    triangle = [
        float(factors[y, x])
        for y in range(rows)
        for x in range(columns)
        if (x or y) and x * rows < columns * (rows - y)
    ]
    scale = max(map(abs, triangle), default=0.0)
    return float(factors[0, 0]), [0.5 + 0.5 / scale * value if scale else 0.0 for value in triangle], scale


def _rounded(value: float) -> int:
    """Half up, as JavaScript's Math.round does; Python's own rounds half to even."""
    return math.floor(value + 0.5)
