"""WebP: its size, and animations with what Pillow needs to show their transparency."""

from __future__ import annotations

import struct

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.limits import Limits

_ANIMATION, _ALPHA = 0x02, 0x10
"""Flags of the chunk VP8X (RFC 9649, section 2.7.1)."""


def size(data: bytes) -> tuple[int, int]:
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


def readable(data: bytes, _limits: Limits) -> bytes:
    """The WebP; an animation with the header's flag for transparency set.

    What the frames do not cover is transparent in browsers. Pillow shows it in black unless the flag is set.
    """
    if data[12:16] != b"VP8X" or not data[20] & _ANIMATION:
        return data
    return data[:20] + bytes([data[20] | _ALPHA]) + data[21:]
