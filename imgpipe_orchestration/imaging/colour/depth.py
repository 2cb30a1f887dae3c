"""Every mode to 8 bits a channel, in a mode that can be resized."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_eight_bits(image: Image.Image) -> Image.Image:
    """L, LA, RGB, RGBA, CMYK or LAB with 8 bits a channel.

    16-bit grey is scaled; Pillow's `convert("L")` would clip everything above 255 to white. A palette or a transparent
    colour becomes RGB or RGBA, because a resize would mix palette indices.
    """
    if image.mode.startswith("I;16"):
        return _scaled_grey(image)
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGBA" if image.palette and image.palette.mode == "RGBA" else "RGB")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        return image
    return image.convert({"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(image.mode, "RGB"))


def _scaled_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits to 8."""
    whole = np.asarray(image)
    grey = Image.fromarray((whole >> 8).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(whole == image.info["transparency"], 0, 255).astype(np.uint8)))
    grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return grey
