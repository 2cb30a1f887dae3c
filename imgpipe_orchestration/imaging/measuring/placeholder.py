"""A picture's placeholder: a tiny WebP as a data URL, which a browser enlarges into a blur."""

from __future__ import annotations

import base64
import io

from PIL import Image

SIDE = 24
"""Pixels of the longer side: 150 to 300 bytes."""


def placeholder(image: Image.Image) -> str:
    """The data URL of an RGB or RGBA picture's placeholder."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=50, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
