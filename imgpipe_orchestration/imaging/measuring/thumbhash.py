"""ThumbHash: a picture's placeholder in about 25 bytes (https://evanw.github.io/thumbhash)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LARGEST = 100
"""The format's reference encoder takes at most 100x100 pixels."""
_SMALLEST = 8
"""Pixels of a side below which there are fewer pixels than frequencies, and the hash shows waves that nobody drew."""
_SHOWN = 32
"""Longer side, pixels, of the picture that a hash is decoded to."""


def thumbhash(image: Image.Image) -> bytes:
    """The ThumbHash of an image, from which any ThumbHash decoder makes a blurred picture."""
    small = image.convert("RGBA")
    small.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
    factor = math.ceil(_SMALLEST / min(small.size))
    width, height = (side * factor for side in small.size)
    small = small.resize((width, height), Image.Resampling.NEAREST)
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
    factors = _cosines(rows, height) @ values @ _cosines(columns, width).T / (width * height)
    triangle = [float(factors[y, x]) for x, y in _frequencies(columns, rows)]
    scale = max(map(abs, triangle), default=0.0)
    return float(factors[0, 0]), [0.5 + 0.5 / scale * value if scale else 0.0 for value in triangle], scale


def painted(hash: bytes) -> Image.Image:
    """The blurred picture in a hash, RGB or RGBA, 32 pixels on its longer side.

    Raises:
        ValueError: the hash is shorter than its head says.
    """
    if len(hash) < 5:
        raise ValueError("A ThumbHash has at least 5 bytes.")
    head, tail = int.from_bytes(hash[:3], "little"), int.from_bytes(hash[3:5], "little")
    has_alpha, landscape = bool(head >> 23), bool(tail >> 15)
    most, least = 5 if has_alpha else 7, max(1, tail & 7)
    columns, rows = (most, least) if landscape else (least, most)
    longest = max(columns, rows)
    width, height = max(1, round(_SHOWN * columns / longest)), max(1, round(_SHOWN * rows / longest))
    nibbles = iter([half for byte in hash[6 if has_alpha else 5 :] for half in (byte & 15, byte >> 4)])

    def channel(mean: float, across: int, down: int, scale: float) -> NDArray[np.float64]:
        factors = np.zeros((down, across))
        factors[0, 0] = mean
        for x, y in _frequencies(across, down):
            half = next(nibbles, None)
            if half is None:
                raise ValueError("The ThumbHash is cut off.")
            factors[y, x] = 2 * scale * (half / 7.5 - 1)
        found: NDArray[np.float64] = _cosines(down, height).T @ factors @ _cosines(across, width)
        return found

    # The format's decoder raises colour contrast by 1.25, to make up for the coarse quantization.
    light = channel((head & 63) / 63, max(3, columns), max(3, rows), (head >> 18 & 31) / 31)
    yellow = channel((head >> 6 & 63) / 31.5 - 1, 3, 3, (tail >> 3 & 63) / 63 * 1.25)
    pink = channel((head >> 12 & 63) / 31.5 - 1, 3, 3, (tail >> 9 & 63) / 63 * 1.25)
    blue = light - 2 / 3 * yellow
    red = (3 * light - blue + pink) / 2
    planes = [red, red - pink, blue]
    if has_alpha:
        planes.append(channel((hash[5] & 15) / 15, 5, 5, (hash[5] >> 4) / 15))
    pixels = np.clip(np.rint(255 * np.stack(planes, axis=-1)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _frequencies(columns: int, rows: int) -> list[tuple[int, int]]:
    """The frequencies (across, down) that the format keeps, in its order: a triangle without the mean."""
    return [(x, y) for y in range(rows) for x in range(columns) if (x or y) and x * rows < columns * (rows - y)]


def _cosines(count: int, length: int) -> NDArray[np.float64]:
    """The first basis functions of the cosine transform over `length` pixels, `count` x `length`."""
    waves: NDArray[np.float64] = np.cos(math.pi / length * np.outer(np.arange(count), np.arange(length) + 0.5))
    return waves


def _rounded(value: float) -> int:
    """Half up, as JavaScript's Math.round does; Python's own rounds half to even."""
    return math.floor(value + 0.5)
