"""Smaller, never larger."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from PIL import Image

from imgpipe_orchestration.imaging.geometry import PixelBox, fit_within

_BANDS = {"L": 1, "RGB": 3, "CMYK": 4}
"""Modes that libvips resizes, and their bytes a pixel."""


def shrink_within(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image within `width` x `height`, of its own shape; itself where it is that small already."""
    return shrink_to(image, *fit_within(image.width, image.height, width, height))


def shrink_to(
    image: Image.Image, width: int, height: int, box: PixelBox | None = None, *, threads: int = 1
) -> Image.Image:
    """Exactly `width` x `height` by LANCZOS, from all of the image or from a box of it.

    libvips takes a quarter of Pillow's time for it. Transparency is left to Pillow, which premultiplies, so that hidden
    colours do not bleed.
    """
    box = box or (0, 0, image.width, image.height)
    if (box[2] - box[0], box[3] - box[1]) == (width, height):
        return image if box == (0, 0, image.width, image.height) else image.crop(box)
    if image.mode in _BANDS:
        return _by_libvips(image, width, height, box, threads)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def _by_libvips(image: Image.Image, width: int, height: int, box: PixelBox, threads: int) -> Image.Image:
    vips, (left, top, right, bottom) = _libvips(), box
    picture = vips.Image.new_from_memory(image.tobytes(), *image.size, _BANDS[image.mode], "uchar")
    picture.set_type(vips.GValue.gint_type, "concurrency", threads)  # other cores have images of their own
    picture = picture.crop(left, top, right - left, bottom - top)
    picture = picture.resize(width / picture.width, vscale=height / picture.height, kernel="lanczos3")
    result = Image.frombytes(image.mode, (width, height), picture.write_to_memory())
    result.info = dict(image.info)
    return result


@lru_cache(maxsize=1)
def _libvips() -> Any:
    """The library, without its cache, which would keep pixels of images that are done with."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips
