"""The first directory of a TIFF, or of EXIF, which has the same structure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from PIL import ExifTags, TiffImagePlugin

_BYTE_TYPES = frozenset({1, 2, 6, 7})
"""BYTE, ASCII, SBYTE and UNDEFINED, whose values Pillow keeps as one byte string."""
_SHORT = 3
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _SUB_DIRECTORIES = 254, 262, 330
"""Tags (TIFF 6.0, section 8, and technical note 1)."""
_WHITE_IS_ZERO, _YCBCR, _WEBP = 0, 6, 50_001
_REDUCED = 1
"""Bit of NewSubfileType: a smaller version of another picture in the file."""
_SENSOR_DATA = frozenset({32803, 34892})
"""Photometric interpretations of raw files: colour filter array and linear raw (DNG specification)."""
_CANON = b"CR\2\0"
"""What a CR2 has after the TIFF header."""


def entry_count(data: bytes) -> int:
    """How many entries the directory claims to have; 0 where there is none to read."""
    order, big, at = _location(data)
    return int.from_bytes(data[at : at + (8 if big else 2)], order)


def value_count(data: bytes) -> int:
    """How many numbers the entries claim to hold, without texts, byte strings and claims larger than the file."""
    return sum(count for _, kind, count, _ in _entries(data) if kind not in _BYTE_TYPES and count <= len(data))


def is_raw(tiff: bytes) -> bool:
    """Whether a TIFF is a camera's raw file (DNG, NEF, CR2, ARW ...).

    The first picture of one is a preview, often a few hundred pixels wide, or sensor data that no TIFF reader shows.
    """
    if tiff[8:12] == _CANON:
        return True
    found = {tag: value for tag, _, _, value in _entries(tiff)}
    is_preview = _SUB_DIRECTORIES in found and found.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED
    return bool(is_preview) or found.get(_PHOTOMETRIC) in _SENSOR_DATA


def is_shown_wrong(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow opens a TIFF and would misread its pixels: in planes; in tiles whose offsets are called those of
    strips; uncompressed YCbCr with fewer colours than pixels; WebP, which is only found out later; more than 8 bits
    with white as zero or as 10 to 14 bits; floats and 32 bits; a palette of 8 bits where the format wants 16, which
    would all be black."""
    tags, tag = image.tag_v2, ExifTags.Base
    bits, compression = max(tags.get(tag.BitsPerSample, (1,))), tags.get(tag.Compression, 1)
    meaning = tags.get(tag.PhotometricInterpretation)
    return (
        (tags.get(tag.PlanarConfiguration) == 2 and tags.get(tag.SamplesPerPixel, 1) > 1)
        or (tag.TileWidth in tags and tag.TileOffsets not in tags)
        or compression == _WEBP
        or (compression == 1 and meaning == _YCBCR)
        or (bits > 8 and (meaning == _WHITE_IS_ZERO or bits % 8 > 0))
        or image.mode in {"F", "I"}
        or (image.mode == "P" and max(tags.get(tag.ColorMap, ()), default=256) <= 0xFF)
    )


def _entries(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count, and value or offset of each entry."""
    order, big, at = _location(data)
    length, width = (20, 8) if big else (12, 4)
    first = at + (8 if big else 2)
    for entry in range(first, first + entry_count(data) * length, length):
        kind = int.from_bytes(data[entry + 2 : entry + 4], order)
        value = entry + 4 + width
        yield (
            int.from_bytes(data[entry : entry + 2], order),
            kind,
            int.from_bytes(data[entry + 4 : value], order),
            int.from_bytes(data[value : value + (2 if kind == _SHORT else width)], order),
        )


def _location(data: bytes) -> tuple[Literal["little", "big"], bool, int]:
    """Byte order, whether it is a BigTIFF, and the offset of the directory."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    return order, big, int.from_bytes(data[8:16] if big else data[4:8], order)
