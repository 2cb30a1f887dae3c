"""The parts of a WebP, and its size."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imgpipe_orchestration.errors import BadImage

_ANIMATION = 0x02
"""Flag of the chunk VP8X (RFC 9649, section 2.7.1)."""


def is_animated(data: bytes) -> bool:
    """Whether the header says so."""
    return data[12:16] == b"VP8X" and bool(data[20] & _ANIMATION)


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


def chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Type of each chunk, animation frames among them, and where its content begins (RFC 9649, section 2.3)."""
    at = 12
    while at + 8 <= len(data):
        yield data[at : at + 4], at + 8
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + (length & 1)
