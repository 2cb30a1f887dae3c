"""Removing alpha channels: opaque ones, and by laying an image over a plain colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Ground = tuple[int, int, int]

WHITE, GREY, DARK = (255, 255, 255), (128, 128, 128), (32, 32, 32)
_DISTINCT = 48
"""Levels of brightness by which a pixel must differ from a ground to be seen on it; each pixel does from two of the
three."""
_OPEN = 0.05
"""Transparent share of a picture's edges from which it has no background; rounded corners alone take that up."""
_OPAQUE = 250
"""Levels of 255 from which nothing is seen through a pixel; lossy formats leave a few less than all."""
_ENOUGH = 250_000
"""Pixels that are looked at for the choice of a ground."""


def drop_opaque_alpha(image: Image.Image) -> Image.Image:
    """RGB where no pixel of an RGBA image is transparent; files get smaller, and JPEG becomes possible."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image


def has_open_edges(image: Image.Image) -> bool:
    """Whether an RGBA image is transparent at its edges. A transparent patch inside does not count."""
    return float((_along_edges(image) < 128).mean()) >= _OPEN


def has_opaque_edges(image: Image.Image) -> bool:
    """Whether an RGBA image is a whole rectangle, without rounded corners or edges that are seen through."""
    return bool(_along_edges(image).min() >= _OPAQUE)


def _along_edges(image: Image.Image) -> NDArray[np.uint8]:
    alpha = np.asarray(image.getchannel("A"))
    return np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])


def flattened(image: Image.Image, ground: Ground | None = None) -> Image.Image:
    """An RGBA image laid over a plain colour (`ground_of` by default), as RGB; others unchanged."""
    if image.mode != "RGBA":
        return image
    plain = Image.new("RGBA", image.size, (*(ground or ground_of(image)), 255))
    return Image.alpha_composite(plain, image).convert("RGB")


def ground_of(image: Image.Image, usual: Ground = WHITE) -> Ground:
    """A ground on which at least half of what is visible of an RGBA image is seen: the usual one unless it hides more,
    as white does with a white logo."""
    step = max(1, round((image.width * image.height / _ENOUGH) ** 0.5))
    brightness = np.asarray(image.convert("RGB").convert("L"))[::step, ::step].ravel()
    opacity = np.asarray(image.getchannel("A"))[::step, ::step].ravel()
    visible = np.bincount(brightness, opacity, minlength=256)
    for ground in (usual, WHITE, DARK):
        seen = np.abs(np.arange(256) - ground[0]) >= _DISTINCT
        if 2 * visible[seen].sum() >= visible.sum():
            return ground
    return usual
