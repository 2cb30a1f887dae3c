"""Pixels to bytes: the same pixels, quality and ownership always give the same bytes."""

from __future__ import annotations

import io
import os

from PIL import Image

from imgpipe_orchestration.imaging import registers
from imgpipe_orchestration.imaging.recipe import Format, Recipe

_PROGRESSIVE_PAYS_FROM = 100_000
"""Bytes from which progressive was smaller on every photo tried; below, down to thumbnails, it was not in half of all
cases, so both are made there and the smaller one is kept."""

_AOM = {"use-intra-dct-only": "1"}
"""Speed 8 tries no other transforms than the DCT: 0.87 of its time for 0.8 % more bytes. Speed 9 never does."""


def encode(image: Image.Image, kind: Format, quality: int, recipe: Recipe, exif: bytes = b"") -> bytes:
    """The image as a file.

    Args:
        image: RGB or RGBA; JPEG takes RGB only.
        quality: 0 to 100 in the encoder's own scale; PNG ignores it.
        exif: the only metadata written.

    A copy is saved, because `Image.save` keeps its options on the image: one image saved by two threads at once gives
    wrong files, silently.
    """
    registers.clear()
    image = image.copy()
    image.info = {}
    if kind == "avif":
        large = image.width * image.height > recipe.large_pixels
        return _into_memory(
            image,
            "AVIF",
            quality=quality,
            speed=recipe.avif_speed_large if large else recipe.avif_speed,
            subsampling=recipe.avif_subsampling,
            max_threads=1,  # more would change the bytes, and take cores from other images
            advanced=_AOM,
            exif=exif,
        )
    if kind == "webp":
        return _into_memory(image, "WEBP", quality=quality, method=recipe.webp_method, exif=exif)
    if kind == "png":
        # Level 6 costs four times the time of level 2 for 9 % fewer bytes.
        return _into_file(image, "PNG", compress_level=2, exif=exif)
    return _jpeg(image, quality, recipe, exif)


def _jpeg(image: Image.Image, quality: int, recipe: Recipe, exif: bytes) -> bytes:
    """Progressive, unless baseline is smaller: in small files the tables of every scan weigh."""
    options = {"quality": quality, "subsampling": recipe.jpeg_subsampling, "exif": exif, "optimize": True}
    progressive = _into_file(image, "JPEG", progressive=True, **options)
    if len(progressive) >= _PROGRESSIVE_PAYS_FROM:
        return progressive
    baseline = _into_file(image, "JPEG", progressive=False, **options)
    return min(progressive, baseline, key=len)


def _into_memory(image: Image.Image, name: str, **options: object) -> bytes:
    """For encoders that work outside Python's lock anyway."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _into_file(image: Image.Image, name: str, **options: object) -> bytes:
    """For JPEG and PNG, which release Python's lock only when they write to a real file descriptor."""
    if not hasattr(os, "memfd_create"):  # macOS
        return _into_memory(image, name, **options)
    with os.fdopen(os.memfd_create("image"), "w+b") as file:
        image.save(file, name, **options)
        file.seek(0)
        return file.read()
