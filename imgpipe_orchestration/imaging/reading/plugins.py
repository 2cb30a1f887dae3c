"""The readers behind each format: Pillow's own, and two that are optional installs."""

from __future__ import annotations

import importlib

from PIL import AvifImagePlugin, BmpImagePlugin, Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.masked_bmps import BmpMasks
from imgpipe_orchestration.imaging.reading.runs import BmpRuns

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
"""Pillow's name of each format that is read. Opening is restricted to the one the signature says."""


AvifImagePlugin.DEFAULT_MAX_THREADS = 1
"""Threads that decode one AVIF. One for each core is Pillow's way, but the other cores have images of their own."""

BmpImagePlugin.BIT2MODE[2] = ("P", "P;2")  # which Windows CE wrote, and browsers read
Image.register_decoder("bmp_masks", BmpMasks)
Image.register_decoder("bmp_rle", BmpRuns)  # after BmpImagePlugin, which registers its own


def enable(name: str) -> None:
    """Make sure the reader of a format is there.

    Raises:
        BadImage: the format is optional and its extra is not installed; says how to install it.
    """
    if name == "heic":
        _optional("pillow_heif", "heic", "HEIC", register="register_heif_opener")
        # As above. Each thread also takes up to 128 MB of the addresses that a worker may use.
        importlib.import_module("pillow_heif").options.DECODE_THREADS = 1
    elif name == "jxl":
        _optional("pillow_jxl", "jxl", "JPEG XL", register=None)
        # As above; 0 is the caller's own thread.
        importlib.import_module("pillow_jxl.JpegXLImagePlugin").__dict__["DECODE_THREADS"] = 0


def _optional(module: str, extra: str, title: str, *, register: str | None) -> None:
    if PILLOW_NAME[extra] in Image.OPEN:
        return
    try:
        plugin = importlib.import_module(module)
    except ImportError as error:
        raise BadImage(
            f"{title} is not enabled here: send JPEG, PNG, WebP or AVIF"
            f" (operators: pip install 'imgpipe-orchestration[{extra}]')"
        ) from error
    if register:
        getattr(plugin, register)()
