"""Pillow's reader of each format, and what has to be corrected in a file for it to show what browsers show."""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import AvifImagePlugin, ExifTags, Image, ImagePalette, TiffImagePlugin, UnidentifiedImageError

from imgpipe_orchestration.imaging.reading import tiff_directory

PILLOW_NAME = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "avif": "AVIF",
    "gif": "GIF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "heic": "HEIF",
}
"""Pillow's name of each format that is read. Opening is restricted to the one that the signature says."""

READ_HERE = "JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF or BMP"
"""What a message asks for in place of a file that is not read."""

AvifImagePlugin.DEFAULT_MAX_THREADS = 1
"""Threads that decode one AVIF. Pillow's default is one for each core, but the other cores have images of their own."""


@lru_cache(maxsize=1)
def enable_heic() -> None:
    """Add the reader of HEIC to Pillow's."""
    import pi_heif  # the decoders of pillow-heif without its encoders, in a third of the size

    # One, as for AVIF. Each thread also takes up to 128 MB of the addresses that a worker may use.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener()


def lazily_opened(data: bytes, name: str) -> Image.Image:
    """The image with its header read and its pixels not decoded.

    Raises:
        UnidentifiedImageError: a TIFF whose pixels Pillow would show wrong.
        Exception: whatever the reader raises for a broken header.
    """
    if name == "heic":
        enable_heic()
    image = Image.open(io.BytesIO(data), formats=[PILLOW_NAME[name]])
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if tiff_directory.is_shown_wrong(image):
            raise UnidentifiedImageError
        levels = image.tag_v2.get(ExifTags.Base.ColorMap, ()) if image.mode == "P" else ()
        if levels and max(levels) <= 0xFF:
            # The format wants 16 bits a level. Some writers store 8, which would all be black; libtiff tests alike.
            image.palette = ImagePalette.raw("RGB;L", bytes(levels))
    return image
