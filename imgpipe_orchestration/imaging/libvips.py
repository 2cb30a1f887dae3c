"""libvips on one thread, as the images of a batch are worked on side by side, and without its cache."""

import logging
from functools import lru_cache
from typing import Any

from PIL import Image

BANDS = {"L": 1, "RGB": 3, "CMYK": 4}
"""Bands of the Pillow modes without transparency whose memory layout libvips shares; each band is a byte."""


@lru_cache(maxsize=1)
def libvips() -> Any:
    """The library, imported on first use because that takes 0.1 s. Its cache would keep pixels of finished images."""
    import pyvips

    pyvips.cache_set_max(0)
    logging.getLogger("pyvips").setLevel(logging.WARNING)  # it tells each step of each image as INFO
    return pyvips


def into_libvips(image: Image.Image) -> Any:
    """The image, whose mode is in `BANDS`, as a libvips image."""
    return libvips().Image.new_from_memory(image.tobytes(), *image.size, BANDS[image.mode], "uchar")


def resized(picture: Any, width: int, height: int) -> Any:
    """The picture at exactly that size, by LANCZOS; computed when its pixels are asked for."""
    return picture.resize(width / picture.width, vscale=height / picture.height, kernel="lanczos3")


def out_of_libvips(picture: Any, mode: str) -> Image.Image:
    """The picture's pixels.

    Raises:
        pyvips.Error: decoding or another operation of the picture failed.
    """
    picture.set_type(libvips().GValue.gint_type, "concurrency", 1)
    return Image.frombytes(mode, (picture.width, picture.height), picture.write_to_memory())
