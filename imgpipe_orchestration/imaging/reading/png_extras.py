"""PNGs in which something is broken that the picture does not need."""

from __future__ import annotations

import zlib

from imgpipe_orchestration.imaging.reading.parts import PICTURE, png_parts

_NEEDED = PICTURE | {b"tRNS", b"acTL", b"fcTL", b"IEND"}
_FEWEST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"iCCP": 12, b"eXIf": 8}
"""Bytes of the other chunks that are read: what the colours mean, and which way up the picture is."""


def without_extras(data: bytes) -> bytes:
    """The same picture without texts, and without what has a wrong checksum or is cut short: as browsers read it."""
    view = memoryview(data)
    kept = [view[:8]]
    for kind, start, end in png_parts(data):
        few = _FEWEST.get(kind)
        sound = few is not None and few <= end - start and _is_intact(view, start, end)
        if kind in _NEEDED or sound:
            kept.append(view[start - 8 : end + 4])
    return b"".join(kept)


def _is_intact(view: memoryview, start: int, end: int) -> bool:
    return zlib.crc32(view[start - 4 : end]) == int.from_bytes(view[end : end + 4])
