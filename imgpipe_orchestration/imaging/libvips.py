"""libvips, on as many threads as its caller has, and without its cache."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from PIL import Image

BANDS = {"L": 1, "RGB": 3, "CMYK": 4, "RGBA": 4}
"""Modes whose pixels both libraries lay out alike, and their bytes a pixel."""


@lru_cache(maxsize=1)
def libvips() -> Any:
    """The library. Its cache would keep pixels of images that are done with. Its import takes 0.1 s, so not before."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips


def into_libvips(image: Image.Image) -> Any:
    """The pixels, of a mode in `BANDS`."""
    return libvips().Image.new_from_memory(image.tobytes(), *image.size, BANDS[image.mode], "uchar")


def resized(picture: Any, width: int, height: int) -> Any:
    """By LANCZOS, to exactly that size, when the pixels are asked for."""
    return picture.resize(width / picture.width, vscale=height / picture.height, kernel="lanczos3")


def out_of_libvips(picture: Any, mode: str, *, threads: int) -> Image.Image:
    """The picture's pixels, computed on that many threads.

    Raises:
        pyvips.Error: whatever the picture is made by failed.
    """
    picture.set_type(libvips().GValue.gint_type, "concurrency", threads)
    return Image.frombytes(mode, (picture.width, picture.height), picture.write_to_memory())
