"""Three ways in which two images can be the same: bytes (SHA-256, anywhere), pixels, looks."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from imgpipe_orchestration.imaging.opencv import cv2

_ROWS = 256
"""Rows that are hashed at a time: all at once would take the picture's memory again."""


def pixel_sha256(image: Image.Image) -> str:
    """Hex digest over size, mode and pixels: equal for the same picture in two lossless files."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    for top in range(0, image.height, _ROWS):
        digest.update(image.crop((0, top, image.width, min(top + _ROWS, image.height))).tobytes())
    return digest.hexdigest()


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that change little when a picture is resized, recompressed or slightly recoloured.

    The signs of the 8x8 lowest frequencies of a 32x32 cosine transform against their median (Zauner 2010, pHash).
    Pictures that look alike differ in about 0 to 10 bits, unrelated ones in about 32.
    """
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32)
    low = cv2.dct(grey)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int("".join("1" if bit else "0" for bit in bits), 2)
