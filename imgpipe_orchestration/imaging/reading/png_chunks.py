"""The chunks of a PNG: their order, contents and checksums."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from imgpipe_orchestration.errors import BadImage

END = b"IEND"
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"fdAT"})
"""Chunks that hold pixels or are needed to decode them."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the colour type in IHDR."""
INDEXED = 3
"""The colour type of a PNG with a palette."""


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The type of each chunk up to IEND, and the offsets at which its content begins and ends.

    What stands behind the end is not the picture's: some writers pad their files, others append what they like.
    """
    at, kind = 8, b""
    while at + 8 <= len(data) and kind != END:
        kind, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4])
        yield kind, at + 8, end
        at = end + 4


def has_end(data: bytes) -> bool:
    """Whether the whole of a PNG is there; more may stand behind its end."""
    return any(kind == END and end + 4 <= len(data) for kind, _, end in chunks(data))


def content_of(data: bytes, wanted: bytes) -> bytes:
    """The content of the first chunk of a type; empty where there is none."""
    return next((data[start:end] for kind, start, end in chunks(data) if kind == wanted), b"")


def check_sums(data: bytes) -> None:
    """Verify the checksums of the first frame's critical chunks. Pillow does not, and would show damage as colours.

    Raises:
        BadImage: a checksum is wrong, or a chunk is cut short.
    """
    view, frames = memoryview(data), 0
    for kind, start, end in chunks(data):
        frames += kind == b"fcTL"
        if frames > 1:
            return
        if kind in _CRITICAL and end + 4 > len(data):
            raise BadImage("the png is cut short")
        if kind in _CRITICAL and zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise BadImage(f"the png data is broken: the checksum of a chunk {kind.decode()} is wrong")
