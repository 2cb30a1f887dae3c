"""Pixels to bytes: the same pixels, quality and ownership always give the same bytes."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image

from imgpipe_orchestration.imaging import registers
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.opencv import cv2
from imgpipe_orchestration.imaging.recipe import Recipe

_PROGRESSIVE_PAYS_FROM = 100_000
"""Bytes from which progressive was smaller on every photo tried; below, down to thumbnails, it was not in half of all
cases, so both are made there and the smaller one is kept."""

_AOM = {"tune": "ssimulacra2", "use-intra-dct-only": "1"}
"""For Pillow's libaom. Tuned for the score that qualities are sought by, it takes 2 to 4 % fewer bytes than as libavif
has it; without other transforms than the DCT 0.87 of the time, for 0.8 % more."""


def encode(image: Image.Image, kind: Format, quality: int, recipe: Recipe, exif: bytes = b"") -> bytes:
    """The image as a file.

    Args:
        image: RGB or RGBA; JPEG takes RGB only.
        quality: 0 to 100 in the encoder's own scale; PNG ignores it.
        exif: the only metadata written.
    """
    registers.clear()
    large = image.width * image.height > recipe.large_pixels
    if kind == "avif":
        speed = recipe.avif_speed_large if large else recipe.avif_speed
        if recipe.avif_subsampling == "4:2:0":
            return avif_420(image, quality, speed, exif=exif)
        return _avif_by_pillow(image, quality, speed, recipe.avif_subsampling, exif=exif)
    if kind == "webp":
        method = recipe.webp_method_large if large else recipe.webp_method
        return _into_memory(image, "WEBP", quality=quality, method=method, exif=exif)
    if kind == "png":
        # Level 6 costs four times the time of level 2 for 9 % fewer bytes.
        return _into_file(image, "PNG", compress_level=2, exif=exif)
    return _jpeg(image, quality, recipe, exif)


def encode_draft(image: Image.Image, kind: Format, quality: int, recipe: Recipe, exif: bytes = b"") -> bytes:
    """A file that decodes to the same pixels as `encode`'s, sooner made and sooner read: baseline JPEG with the
    standard Huffman tables. The other formats know no such thing; theirs is the very file.
    """
    if kind != "jpeg":
        return encode(image, kind, quality, recipe, exif)
    registers.clear()
    return _into_file(image, "JPEG", quality=quality, subsampling=recipe.jpeg_subsampling)


def encode_lossless(image: Image.Image, exif: bytes = b"") -> bytes:
    """The image (RGB or RGBA) as WebP, pixel for pixel. At this effort a page of text takes 0.1 s for 1.6 megapixels,
    twice the time of a lossy file, and 0.3 to 0.5 of the bytes of half the effort."""
    registers.clear()
    return _into_memory(image, "WEBP", lossless=True, quality=80, method=4, exif=exif)


def _bare(image: Image.Image) -> Image.Image:
    """A copy without metadata. `Image.save` keeps its options on the image: one image saved by two threads at once
    would give wrong files, silently."""
    image = image.copy()
    image.info = {}
    return image


def avif_420(image: Image.Image, quality: int, speed: int, *, exif: bytes = b"", xmp: bytes = b"") -> bytes:
    """The image (RGB or RGBA) as AVIF with half of the colours' resolution.

    By OpenCV, whose build of libaom takes 0.6 to 0.75 of the time of Pillow's, of the same version. Not every
    platform's has it, and none writes 4:4:4.
    """
    if not cv2.haveImageWriter(".avif"):
        return _avif_by_pillow(image, quality, speed, "4:2:0", exif=exif, xmp=xmp)
    order = cv2.COLOR_RGBA2BGRA if image.mode == "RGBA" else cv2.COLOR_RGB2BGR
    metadata = {cv2.IMAGE_METADATA_EXIF: exif, cv2.IMAGE_METADATA_XMP: xmp}
    written = {kind: np.frombuffer(data, np.uint8) for kind, data in metadata.items() if data}
    settings = [cv2.IMWRITE_AVIF_QUALITY, quality, cv2.IMWRITE_AVIF_SPEED, speed]
    pixels = cv2.cvtColor(np.asarray(image), order)
    ok, data = cv2.imencodeWithMetadata(".avif", pixels, list(written), list(written.values()), settings)
    if not ok:
        raise OSError("the AVIF encoder failed")
    return data.tobytes()


def _avif_by_pillow(
    image: Image.Image, quality: int, speed: int, subsampling: str, *, exif: bytes = b"", xmp: bytes = b""
) -> bytes:
    options = {"subsampling": subsampling, "max_threads": 1, "advanced": _AOM, "exif": exif, "xmp": xmp}
    return _into_memory(image, "AVIF", quality=quality, speed=speed, **options)


def _jpeg(image: Image.Image, quality: int, recipe: Recipe, exif: bytes) -> bytes:
    """Progressive, unless baseline is smaller: in small files the tables of every scan weigh."""
    options = {"quality": quality, "subsampling": recipe.jpeg_subsampling, "exif": exif}
    try:
        progressive = _into_file(image, "JPEG", progressive=True, optimize=True, **options)
        if len(progressive) >= _PROGRESSIVE_PAYS_FROM:
            return progressive
        baseline = _into_file(image, "JPEG", optimize=True, **options)
    except OSError:
        # Both are written at once, into a buffer of a byte for each pixel. Colourful noise takes more.
        return _into_file(image, "JPEG", **options)
    return min(progressive, baseline, key=len)


def _into_memory(image: Image.Image, name: str, **options: object) -> bytes:
    """For encoders that work outside Python's lock anyway."""
    file = io.BytesIO()
    _bare(image).save(file, name, **options)
    return file.getvalue()


def _into_file(image: Image.Image, name: str, **options: object) -> bytes:
    """For JPEG and PNG, which release Python's lock only when they write to a real file descriptor."""
    if not hasattr(os, "memfd_create"):  # macOS
        return _into_memory(image, name, **options)
    with os.fdopen(os.memfd_create("image"), "w+b") as file:
        _bare(image).save(file, name, **options)
        file.seek(0)
        return file.read()
