"""The reader of each format: Pillow's where it shows what browsers show, else one of ours or an optional install."""

from __future__ import annotations

import importlib
import importlib.util
import io
from functools import lru_cache

from PIL import AvifImagePlugin, BmpImagePlugin, ExifTags, Image, ImagePalette, TiffImagePlugin, UnidentifiedImageError

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits
from imgpipe_orchestration.imaging.reading import (
    apng,
    av1,
    bmp_headers,
    deep_tiffs,
    gif_xmp,
    jpeg_extras,
    jxl,
    masked_bmps,
    padded_avifs,
    png_extras,
    tiff_directory,
    webp,
)
from imgpipe_orchestration.imaging.reading.boxes import Boxes
from imgpipe_orchestration.imaging.reading.rle_bmps import BmpRuns

PILLOW_NAME = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "avif": "AVIF",
    "gif": "GIF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "heic": "HEIF",
    "jxl": "JXL",
}
"""Pillow's name of each format that is read. Opening is restricted to the one that the signature says."""

OPTIONAL = {"jxl": ("JPEG XL", "pillow_jxl")}
"""The title of each format that an extra adds, and the module that reads it."""

_BIG_ENDIAN_BIG_TIFF = b"MM\0+"
"""Pillow takes such a file for a classic TIFF and misreads it."""

_READABLE = {
    "avif": av1.readable,
    "jxl": jxl.readable,
    "png": lambda data, limits: png_extras.up_to_pixels(apng.readable(data, limits)),
    "bmp": bmp_headers.readable,
    "tiff": tiff_directory.readable,
    "webp": webp.readable,
}
"""Rewrites a file into the form that its reader accepts."""

_XMP = {"gif": gif_xmp.xmp, "jxl": jxl.xmp}
"""Finds XMP that the format's reader passes over."""

_WITHOUT_EXTRAS = {
    "avif": av1.without_exif,
    "jpeg": jpeg_extras.without_extras,
    "png": png_extras.without_extras,
}
"""Removes optional parts that may be broken from a file that Pillow refuses."""

AvifImagePlugin.DEFAULT_MAX_THREADS = 1
"""Threads that decode one AVIF. Pillow's default is one for each core, but the other cores have images of their own."""

BmpImagePlugin.BIT2MODE[2] = ("P", "P;2")  # written by Windows CE and read by browsers
Image.register_decoder("bmp_masks", masked_bmps.BmpMasks)
Image.register_decoder("bmp_rle", BmpRuns)  # after BmpImagePlugin, which registers its own


def enable(name: str) -> None:
    """Make sure the reader of a format is there.

    Raises:
        BadImage: the format is optional and its extra is not installed; says how to install it.
    """
    if name in OPTIONAL and PILLOW_NAME[name] not in Image.OPEN:
        _add(name)
    if name == "heic":
        _enable_heic()
    elif name == "jxl":
        # One, as for AVIF: 0 is the caller's own thread.
        importlib.import_module("pillow_jxl.JpegXLImagePlugin").__dict__["DECODE_THREADS"] = 0


@lru_cache(maxsize=1)
def _enable_heic() -> None:
    import pi_heif  # the decoders of pillow-heif without its encoders, in a third of the size

    # One, as for AVIF. Each thread also takes up to 128 MB of the addresses that a worker may use.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener()


def _add(name: str) -> None:
    title, module = OPTIONAL[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise BadImage(
            f"{title} is not enabled here: send {read_here()}"
            f" (operators, in the project's folder: pip install -c constraints.txt '.[{name}]')"
        ) from error


def read_here() -> str:
    """What a message asks for in place of a file that is not read."""
    extras = (title for title, module in OPTIONAL.values() if importlib.util.find_spec(module))
    *others, last = ("JPEG", "PNG", "WebP", "AVIF", "HEIC", "GIF", "TIFF", "BMP", *extras)
    return f"{', '.join(others)} or {last}"


def lazily_opened(data: bytes, name: str, limits: Limits) -> Image.Image:
    """The image with its header read and its pixels not decoded; its format is enabled.

    Raises:
        Exception: whatever the reader raises for a broken header.
    """
    source = _READABLE[name](data, limits) if name in _READABLE else data
    image = _OPENED.get(name, _by_pillow)(source, name)
    if name in _XMP and (packet := _XMP[name](data, limits)):
        image.info["xmp"] = packet  # where other readers put it
    return image


def _by_pillow(data: bytes, name: str) -> Image.Image:
    formats = [PILLOW_NAME[name]]
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        raise
    except Exception:
        if name not in _WITHOUT_EXTRAS:
            raise
        return Image.open(io.BytesIO(_WITHOUT_EXTRAS[name](data)), formats=formats)


def _bmp(data: bytes, name: str) -> Image.Image:
    """By Pillow, or by our own reader where Pillow does not know the masks or would lose the transparency."""
    masks = masked_bmps.masks_of(data)
    if masks and masks.bits == 16 and masks.mode == "RGBA":
        return masked_bmps.MaskedBmp(io.BytesIO(data))
    try:
        return _by_pillow(data, name)
    except OSError:
        if masks is None:
            raise
        return masked_bmps.MaskedBmp(io.BytesIO(data))


def _tiff(data: bytes, name: str) -> Image.Image:
    """By Pillow, or by `deep_tiffs` where Pillow does not know the file or would show it wrong."""
    if data.startswith(_BIG_ENDIAN_BIG_TIFF):
        return deep_tiffs.DeepTiff(io.BytesIO(data))
    try:
        image = _by_pillow(data, name)
    except UnidentifiedImageError:
        return deep_tiffs.DeepTiff(io.BytesIO(data))
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return image
    if deep_tiffs.is_shown_wrong(image):
        return deep_tiffs.DeepTiff(io.BytesIO(data))
    levels = image.tag_v2.get(ExifTags.Base.ColorMap, ()) if image.mode == "P" else ()
    if levels and max(levels) <= 0xFF:
        # The format wants 16 bits a level. Some writers store 8, which would all be black; libtiff's tools test alike.
        image.palette = ImagePalette.raw("RGB;L", bytes(levels))
    return image


def _avif(data: bytes, name: str) -> Image.Image:
    image = _by_pillow(data, name)
    part = Boxes(data, DEFAULT_LIMITS.max_boxes).clean_aperture(*image.size)
    return padded_avifs.opened(data, part) if part else image


_OPENED = {"avif": _avif, "bmp": _bmp, "tiff": _tiff}
"""Where Pillow alone is not enough."""
