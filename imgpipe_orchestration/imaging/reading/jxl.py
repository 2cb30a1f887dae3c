"""JPEG XL: its size, and the picture without the rest of its container.

The reader decodes on opening, and unpacks whatever the container holds: 252 bytes can become 60 MB of metadata.
"""

from __future__ import annotations

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import Limits

_SIGNATURE = b"\xff\x0a"
_START = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
"""The boxes that a container begins with."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_WIDTHS = (9, 13, 18, 30)
_PREVIEW_WIDTHS = ((6, 8, 10, 12), (0, 0, 5, 9))
"""Bits of a preview's side in pixels, and in units of eight."""
_HEADER = 40
"""Bytes of a code stream that hold all of the header that is read here."""


def readable(data: bytes, limits: Limits) -> bytes:
    """The same picture with only the code stream and EXIF in its container (ISO/IEC 18181-2).

    Left out are EXIF past the limit, compressed EXIF (in a `brob` box), whose size nobody knows, and the likewise
    compressed data for reconstructing an original JPEG, which the pixels do not need.

    Raises:
        BadImage, TooLarge: as `size`.
    """
    stream, exif, _ = _parts(data, limits)
    return _START + exif + _box(b"jxlc", stream) if exif else stream


def xmp(data: bytes, limits: Limits) -> bytes:
    """The XMP in the container; empty where there is none, or only compressed.

    Raises:
        BadImage, TooLarge: as `size`.
    """
    return _parts(data, limits)[2]


def size(data: bytes, limits: Limits) -> tuple[int, int]:
    """Width and height of a still picture, pixels (ISO/IEC 18181-1, SizeHeader and ImageMetadata).

    Raises:
        BadImage: a container without a code stream, or an animation: the reader would decode all of its frames and
            return the last one.
        TooLarge: a container with more boxes than the limit.
    """
    bits = _Bits(_parts(data, limits)[0])
    found = _size(bits)
    all_default = bits.take(1)
    if not all_default and bits.take(1):  # extra fields
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)  # intrinsic size, at which it is meant to be displayed
        if bits.take(1):
            _skip_preview_size(bits)
        if bits.take(1):
            raise BadImage("the JPEG XL is an animation, which is not read: send WebP, AVIF or GIF")
    return found


class _Bits:
    """The bits of a code stream's header, lowest first."""

    def __init__(self, stream: bytes) -> None:
        self._left = int.from_bytes(stream[2:_HEADER], "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    def side(small: int) -> int:
        return (bits.take(5) + 1) * 8 if small else bits.take(_WIDTHS[bits.take(2)]) + 1

    small = bits.take(1)
    height = side(small)
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    return side(small), height


def _skip_preview_size(bits: _Bits) -> None:
    widths = _PREVIEW_WIDTHS[bits.take(1)]
    bits.take(widths[bits.take(2)])
    if not bits.take(3):
        bits.take(widths[bits.take(2)])


def _parts(data: bytes, limits: Limits) -> tuple[bytes, bytes, bytes]:
    """The code stream, the box that holds the EXIF, and the XMP; empty where there is none, or one too large."""
    if data.startswith(_SIGNATURE):
        return data, b"", b""
    at, stream, exif, packet = 0, [], b"", b""
    for _ in range(limits.max_parts):
        if at + 8 > len(data):
            break
        length, start = int.from_bytes(data[at : at + 4]), at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16]), at + 16
        end = max(at + length, start) if length else len(data)
        kind, at = data[at + 4 : at + 8], end
        if kind == b"jxlc":
            stream.append(data[start:end])
        elif kind == b"jxlp":
            stream.append(data[start + 4 : end])  # each begins with its number
        elif kind == b"Exif" and not exif and end - start <= limits.max_exif_bytes:
            exif = _box(kind, data[start:end])
        elif kind == b"xml " and not packet and end - start <= limits.max_exif_bytes:
            packet = data[start:end]
    else:
        raise TooLarge(f"the jpeg xl has more than {limits.max_parts:,} boxes, which no picture needs")
    whole = b"".join(stream)
    if not whole.startswith(_SIGNATURE):
        raise BadImage("the JPEG XL container holds no code stream")
    return whole, exif, packet


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content
