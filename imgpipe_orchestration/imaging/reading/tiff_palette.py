"""TIFF palettes with 8-bit levels, where the format wants 16."""

from __future__ import annotations

from PIL import ExifTags, ImagePalette, TiffImagePlugin


def mend(image: TiffImagePlugin.TiffImageFile) -> None:
    """Give an opened TIFF the palette that was meant: some writers do not scale it, and all of it would be black.

    libtiff's tools go by the same sign.
    """
    levels = image.tag_v2.get(ExifTags.Base.ColorMap, ()) if image.mode == "P" else ()
    if levels and max(levels) <= 0xFF:
        image.palette = ImagePalette.raw("RGB;L", bytes(levels))
