"""JPEG XL: the picture without what its container holds beside, and its size.

The reader decodes on opening, and unpacks all that the container holds: 252 bytes become 60 MB of metadata.
"""

from __future__ import annotations

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import Limits

_SIGNATURE = b"\xff\x0a"
_START = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
"""The boxes with which a container begins."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_WIDTHS = (9, 13, 18, 30)


def readable(data: bytes, limits: Limits) -> bytes:
    """The same picture with nothing in its container (ISO/IEC 18181-2) but the code stream and EXIF within the limit.

    EXIF that is packed (in a box `brob`) is left out, for nobody knows how large it is; so is what makes a JPEG's own
    bytes again, which the pixels do not need and which is packed as well.

    Raises:
        BadImage, TooLarge: as `size`.
    """
    stream, exif = _parts(data, limits)
    return _START + exif + _box(b"jxlc", stream) if exif else stream


def size(data: bytes, limits: Limits) -> tuple[int, int]:
    """Width and height, pixels (ISO/IEC 18181-1, SizeHeader).

    Raises:
        BadImage: a container without a code stream.
        TooLarge: one of more boxes than the limit.
    """
    stream, _ = _parts(data, limits)
    bits = int.from_bytes(stream[2:14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def side(small: int) -> int:
        return (take(5) + 1) * 8 if small else take(_WIDTHS[take(2)]) + 1

    small = take(1)
    height = side(small)
    ratio = take(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    return side(small), height


def _parts(data: bytes, limits: Limits) -> tuple[bytes, bytes]:
    """The code stream, and the box that holds the EXIF; empty where there is none, or one too large."""
    if data.startswith(_SIGNATURE):
        return data, b""
    at, stream, exif = 0, [], b""
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
    else:
        raise TooLarge(f"the jpeg xl has more than {limits.max_parts:,} boxes, which no picture needs")
    whole = b"".join(stream)
    if not whole.startswith(_SIGNATURE):
        raise BadImage("the JPEG XL container holds no code stream")
    return whole, exif


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content
