"""Every mode to 8 bits a channel, in a mode that can be resized."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_eight_bits(image: Image.Image) -> Image.Image:
    """L, LA, RGB, RGBA, CMYK or LAB with 8 bits a channel.

    16-bit grey is scaled; Pillow's `convert("L")` would clip everything above 255 to white. A palette or a transparent
    colour becomes RGB or RGBA, because a resize would mix palette indices.
    """
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        return _scaled_grey(image)
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGBA" if image.palette and image.palette.mode == "RGBA" else "RGB")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        return image
    return image.convert({"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(image.mode, "RGB"))


def _scaled_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or more bits to 8. Integers are 0 to 65535 and floats 0 to 1; values beyond that are stretched.

    Works in place where possible: at 50 megapixels each further copy would take 200 MB.
    """
    whole = _levels(image)
    if whole.dtype.kind == "f":
        values = whole
        np.nan_to_num(values, copy=False, posinf=np.inf, neginf=-np.inf)
        low, high = _finite_range(values)
        np.clip(values, low, high, out=values)
        if low < 0 or high > 1:
            values -= low
            values /= max(high - low, 1e-12)
        values *= 255
        grey = Image.fromarray(np.rint(values, out=values).astype(np.uint8))
    else:
        grey = Image.fromarray((whole >> 8).astype(np.uint8))
        if "transparency" in image.info:
            grey.putalpha(Image.fromarray(np.where(whole == image.info["transparency"], 0, 255).astype(np.uint8)))
    grey.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return grey


def _finite_range(values: NDArray[np.float32]) -> tuple[float, float]:
    """The smallest and the largest number, infinity aside: stretched to that, all else would be black or white."""
    finite = np.isfinite(values)
    low, high = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
    return (float(low), float(high)) if low <= high else (0.0, 0.0)


def _levels(image: Image.Image) -> NDArray[Any]:
    """The pixels as 16-bit integers, or as floats if they were floats or are wider integers that need stretching."""
    if image.mode == "F":
        return np.array(image, dtype=np.float32)
    whole = np.asarray(image)
    if image.mode != "I":
        return whole
    return whole if whole.min() >= 0 and whole.max() <= 0xFFFF else whole.astype(np.float32)
