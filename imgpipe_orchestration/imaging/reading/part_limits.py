"""Limits on how many parts a file is made of: segments, chunks, blocks, directory entries.

Pillow runs a Python loop over them, so 5 MB of empty parts cost a second and 150 MB before a pixel is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import Limits
from imgpipe_orchestration.imaging.reading import png_chunks, tiff_directory
from imgpipe_orchestration.imaging.reading.jpeg_segments import APP1, APP13, QUANTIZATION, segments

_BYTES_OF_A_GIF_BLOCK = 256
_BYTES_OF_A_PART = 1024
"""Those of other formats seldom have fewer than 4,096: what is smaller is counted among the `Limits.max_parts`."""


def check_parts(data: bytes, name: str, limits: Limits) -> None:
    """Refuse a file with far more parts than a picture of its length needs. Counting stops at the limit.

    Raises:
        TooLarge: past the limit, which the message names.
    """
    walk = {"jpeg": segments, "png": png_chunks.chunks, "gif": _gif_blocks, "webp": _webp_chunks}.get(name)
    most = limits.max_parts + len(data) // (_BYTES_OF_A_GIF_BLOCK if name == "gif" else _BYTES_OF_A_PART)
    if walk and next(islice(walk(data), most, None), None) is not None:
        raise TooLarge(f"the {name} is cut into more than {most:,} parts, which no picture of its length needs")
    if name == "jpeg":
        _check_jpeg(data, most, limits)
    if name == "tiff" and (entries := tiff_directory.entry_count(data)) > limits.max_entries:
        raise TooLarge(f"the tiff's directory has {entries:,} entries, the limit is {limits.max_entries:,}")
    if name == "tiff" and (values := tiff_directory.value_count(data)) > limits.max_values:
        raise TooLarge(f"the tiff's directory has {values:,} values, the limit is {limits.max_values:,}")


def _check_jpeg(data: bytes, most: int, limits: Limits) -> None:
    """Refuse much of what Pillow parses in Python, or copies whole with each piece added: 58 MB of EXIF take 13 s."""
    found = list(segments(data))
    if sum(data.count(b"8BIM", at, end) for kind, at, end in found if kind == APP13) > most:
        raise TooLarge(f"the jpeg has more than {most:,} blocks of Photoshop's, which no picture of its length needs")
    exif = sum(end - at for kind, at, end in found if kind == APP1 and data[at : at + 6] == b"Exif\0\0")
    if exif > limits.max_exif_bytes:
        raise TooLarge(f"the jpeg has {exif:,} bytes of EXIF, the limit is {limits.max_exif_bytes:,}")
    tables = sum(end - at for kind, at, end in found if kind == QUANTIZATION)
    if tables > limits.max_table_bytes:
        raise TooLarge(f"the jpeg has {tables:,} bytes of quantization tables, the limit is {limits.max_table_bytes:,}")


def _gif_blocks(data: bytes) -> Iterator[int]:
    """The length of each data sub-block (GIF89a, section 15) up to the second image; 0 for a stray byte.

    Nobody reads further: a second image only shows that this is an animation.
    """
    images, at = 0, 13 + _gif_colour_table(data, 10)
    while at < len(data):
        kind = data[at]
        if kind == ord("!"):
            at += 2
        elif kind == ord(",") and images == 0:
            images += 1
            at += 11 + _gif_colour_table(data, at + 9)
        elif kind in (ord(","), ord(";")):
            return
        else:
            yield 0
            at += 1
            continue
        while at < len(data) and (length := data[at]):
            yield length
            at += 1 + length
        yield 0
        at += 1


def _gif_colour_table(data: bytes, at: int) -> int:
    """Bytes of the colour table announced by the flags at `at`."""
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


_ANIMATION = 0x02
"""Flag of the chunk VP8X (RFC 9649, section 2.7.1)."""


def is_animated_webp(data: bytes) -> bool:
    """Whether the header says so."""
    return data[12:16] == b"VP8X" and bool(data[20] & _ANIMATION)


def webp_size(data: bytes) -> tuple[int, int]:
    """Canvas of a WebP, pixels (RFC 9649, sections 2.5 to 2.7).

    Raises:
        BadImage: cut short, or an unknown first chunk.
    """
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(body) == 10:
        if kind == b"VP8X":
            return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        if kind == b"VP8 ":
            width, height = struct.unpack("<HH", body[6:10])
            return width & 0x3FFF, height & 0x3FFF
    raise BadImage("the WebP header is broken or cut short")


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Type of each chunk, animation frames among them, and where its content begins (RFC 9649, section 2.3)."""
    at = 12
    while at + 8 <= len(data):
        yield data[at : at + 4], at + 8
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + (length & 1)
