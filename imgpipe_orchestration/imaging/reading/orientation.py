"""EXIF orientation, turned into pixels."""

from __future__ import annotations

from PIL import ExifTags, Image

from imgpipe_orchestration.imaging.reading.metadata import exif_of

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes each value upright (EXIF 2.32, tag 0x0112); 1 is upright already."""

_TURNED_BY_READER = ("TIFF", "HEIF")


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, in whichever format it is carried; 1 where absent or broken.

    Also 1 for formats whose readers rotate the pixels themselves: TIFF, and HEIC, which has an orientation of its own
    besides EXIF's (ISO/IEC 23008-12). EXIF in a PNG's texts does not count: browsers ignore it,
    and programs that rotate a picture's pixels do not reset it.
    """
    if image.format in _TURNED_BY_READER or "exif" not in image.info:
        return 1
    value = exif_of(image).get(ExifTags.Base.Orientation, 1)
    return value if value in _TURN else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is meant to be seen."""
    return image.transpose(_TURN[orientation]) if orientation in _TURN else image


def swaps_sides(orientation: int) -> bool:
    """Whether the upright image has the stored one's width as its height."""
    return orientation >= 5
