"""Pixels to bytes: the same pixels, quality and ownership always give the same bytes."""

import io

import numpy as np
from PIL import Image

from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.opencv import cv2
from imgpipe_orchestration.imaging.recipe import Recipe

_PROGRESSIVE_PAYS_FROM = 100_000
"""Bytes from which progressive was smaller for every photo tried. Below, it was larger in half of all cases, so both
are made and the smaller one is kept."""

_AOM = {"tune": "ssimulacra2", "use-intra-dct-only": "1"}
"""Options for Pillow's libaom. Tuned for the score that we search by, it makes 2 to 4 % fewer bytes than with libavif's
default; with the DCT as the only transform it takes 0.87 of the time, for 0.8 % more bytes."""

_ALPHA_LEVEL = 20
"""libaom's quantizer for transparency, 0 to 63, whatever the quality of the colours. With theirs, single pixels beside
small letters were off by up to 180 of 255, which the score over grey does not mind. With 20 they are off by 39 at most,
for 13 % more bytes at the same score (11 logos and cut-out photographs)."""


def encode(image: Image.Image, kind: Format, quality: int, recipe: Recipe, exif: bytes = b"") -> bytes:
    """The image as a file.

    Args:
        image: RGB or RGBA; JPEG takes RGB only.
        quality: 0 to 100 in the encoder's own scale; PNG ignores it.
        exif: the only metadata written.
    """
    large = image.width * image.height > recipe.large_pixels
    if kind == "avif":
        speed = recipe.avif_speed_large if large else recipe.avif_speed
        if recipe.avif_subsampling == "4:2:0" and image.mode == "RGB":
            return avif_420(image, quality, speed, exif=exif)
        return _avif_by_pillow(image, quality, speed, recipe.avif_subsampling, exif=exif)
    if kind == "webp":
        method = recipe.webp_method_large if large else recipe.webp_method
        return _saved(image, "WEBP", quality=quality, method=method, exif=exif)
    if kind == "png":
        # Level 6 takes four times as long as level 2, for 9 % fewer bytes.
        return _saved(image, "PNG", compress_level=2, exif=exif)
    return _jpeg(image, quality, recipe, exif)


def encode_lossless(image: Image.Image, exif: bytes = b"") -> bytes:
    """The image (RGB or RGBA) as lossless WebP. At this effort a page of text of 1.6 megapixels takes 0.1 s, twice as
    long as a lossy file, and 0.3 to 0.5 of the bytes of half the effort."""
    return _saved(image, "WEBP", lossless=True, quality=80, method=4, exif=exif)


def avif_420(image: Image.Image, quality: int, speed: int, *, exif: bytes = b"", xmp: bytes = b"") -> bytes:
    """The image (RGB) as AVIF with 4:2:0 chroma subsampling.

    Encoded by OpenCV, whose build of libaom takes 0.6 to 0.75 of the time of Pillow's, of the same version. It is not
    in OpenCV on every platform, and cannot write 4:4:4.

    Raises:
        OSError: the encoder failed.
    """
    if not cv2.haveImageWriter(".avif"):
        return _avif_by_pillow(image, quality, speed, "4:2:0", exif=exif, xmp=xmp)
    metadata = {cv2.IMAGE_METADATA_EXIF: exif, cv2.IMAGE_METADATA_XMP: xmp}
    written = {kind: np.frombuffer(data, np.uint8) for kind, data in metadata.items() if data}
    settings = [cv2.IMWRITE_AVIF_QUALITY, quality, cv2.IMWRITE_AVIF_SPEED, speed]
    pixels = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencodeWithMetadata(".avif", pixels, list(written), list(written.values()), settings)
    if not ok:
        raise OSError("the AVIF encoder failed")
    return data.tobytes()


def _avif_by_pillow(
    image: Image.Image, quality: int, speed: int, subsampling: str, *, exif: bytes = b"", xmp: bytes = b""
) -> bytes:
    advanced = _AOM | ({"alpha:cq-level": str(_ALPHA_LEVEL)} if image.mode == "RGBA" else {})
    options = {"subsampling": subsampling, "max_threads": 1, "advanced": advanced, "exif": exif, "xmp": xmp}
    return _saved(image, "AVIF", quality=quality, speed=speed, **options)


def _jpeg(image: Image.Image, quality: int, recipe: Recipe, exif: bytes) -> bytes:
    """Progressive, unless baseline is smaller: in small files the tables of the scans take a large share."""
    options = {"quality": quality, "subsampling": recipe.jpeg_subsampling, "exif": exif}
    try:
        progressive = _saved(image, "JPEG", progressive=True, optimize=True, **options)
        if len(progressive) >= _PROGRESSIVE_PAYS_FROM:
            return progressive
        baseline = _saved(image, "JPEG", optimize=True, **options)
    except OSError:
        # Progressive and optimized JPEGs are written in one piece into a buffer of one byte per pixel, which is too
        # small for colourful noise.
        return _saved(image, "JPEG", **options)
    return min(progressive, baseline, key=len)


def _saved(image: Image.Image, name: str, **options: object) -> bytes:
    """A copy without metadata is saved: `Image.save` stores its options on the image, so that two threads that save the
    same one would silently write wrong files."""
    bare, file = image.copy(), io.BytesIO()
    bare.info = {}
    bare.save(file, name, **options)
    return file.getvalue()
